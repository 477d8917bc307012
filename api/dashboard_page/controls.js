/**
 * Retry, cancel, done, assign: a dialog that first asks the server what would happen, says so, and does it on a click.
 *
 * For one task the single routes are asked, for more of them the routes that take many.
 */

import { html, nothing } from "./vendor/lit-html/lit-html.js";
import { api, Failed, textOf } from "./api.js";
import { many, moment } from "./format.js";
import { load } from "./reading.js";
import { signIn } from "./sign_in.js";
import { changed, state, tell } from "./state.js";

const AT_ONCE = 200;
const SHOWN = 50;

const KINDS = {
  retry: { title: "Retry", button: "Retry", done: "queued" },
  cancel: { title: "Cancel", button: "Cancel it", stay: "Keep it", done: "cancelled", field: "reason", label: "Reason, which stays with the execution", value: "cancelled on the dashboard" },
  done: { title: "Mark done", button: "Mark done", done: "marked done", field: "reason", label: "Reason", value: "done, as told on the dashboard" },
  assign: { title: "Assign", button: "Assign", done: "assigned", field: "assignee", label: "Assignee (empty: nobody)", value: "" },
};

/** Open the dialog. */
export function ask(what, taskIds) {
  const dialog = { what, taskIds, value: KINDS[what].value ?? "", results: null, trouble: null, isBusy: false, opener: document.activeElement };
  if (what === "assign") dialog.value = state.execution?.assignee ?? "";
  state.dialog = dialog;
  changed();
  requestAnimationFrame(() => document.querySelector("dialog")?.showModal());
  preview(dialog);
}

function shut() {
  const opener = state.dialog?.opener;
  state.dialog = null;
  changed();
  requestAnimationFrame(() => opener?.isConnected && opener.focus());
}

async function preview(dialog) {
  const { value } = dialog;
  try {
    const results = await sent(dialog, dialog.taskIds, { dryRun: true });
    if (value === dialog.value) Object.assign(dialog, { results, trouble: null });
  } catch (error) {
    dialog.trouble = textOf(error);
  }
  changed();
}

function typed(event, dialog) {
  dialog.value = event.target.value;
  clearTimeout(dialog.typing);
  // Who it is assigned to decides what happens; a reason does not.
  if (dialog.what === "assign") dialog.typing = setTimeout(() => preview(dialog), 300);
  changed();
}

async function confirm(event, dialog) {
  event.preventDefault();
  if (dialog.isBusy) return; // the second click of a double click
  dialog.isBusy = true;
  dialog.trouble = null;
  changed();
  try {
    const results = await sent(dialog, possible(dialog).map((item) => item.taskId), { dryRun: false });
    const done = results.filter((item) => item.status < 300), refused = results.length - done.length;
    if (results.length === 1 && refused) throw new Failed(results[0].status, results[0].body);
    state.selection.clear();
    shut();
    tell(doneText(dialog, done, refused), refused ? "bad" : "good");
    load();
  } catch (error) {
    dialog.trouble = textOf(error);
  } finally {
    dialog.isBusy = false;
    changed();
  }
}

/** An answer for each task: {taskId, status, body}. Raises where none of them can be asked. */
async function sent({ what, value, taskIds: { length } }, taskIds, { dryRun }) {
  const { field } = KINDS[what];
  // The server wants a reason that says something; for a look ahead any will do.
  const body = field ? { [field]: value.trim() || (field === "assignee" ? null : "-") } : {};
  if (length === 1) {
    const [taskId] = taskIds;
    try {
      const said = await api.control(what, taskId, body, { dryRun });
      return [{ taskId, status: what === "retry" || said.status !== undefined ? 202 : 200, body: said }];
    } catch (error) {
      if (error instanceof Failed && [404, 409].includes(error.status)) return [{ taskId, status: error.status, body: error.body }];
      throw error;
    }
  }
  const results = [];
  for (let left = [...taskIds]; left.length; ) {
    const asked = left.slice(0, AT_ONCE);
    const answer = await api.controlMany(what, asked, body, { dryRun });
    results.push(...answer.results);
    // What the server did not come to in time is asked for again.
    left = [...answer.left, ...left.slice(AT_ONCE)];
    changed();
  }
  return results;
}

const possible = ({ results }) => (results ?? []).filter((item) => item.status < 300);

/** The dialog that is open, if one is. */
export function controls() {
  const { dialog } = state;
  if (!dialog) return nothing;
  return html`<dialog aria-labelledby=${state.session.isSignedIn ? "dialog-title" : "sign-in-title"} @close=${shut}
    @cancel=${(event) => dialog.isBusy && event.preventDefault()}>
    ${state.session.isSignedIn ? form(dialog) : signIn()}
  </dialog>`;
}

function form(dialog) {
  const kind = KINDS[dialog.what], ready = possible(dialog), isOne = dialog.taskIds.length === 1;
  const subject = isOne ? dialog.taskIds[0] : many(dialog.taskIds.length, "execution");
  const isPossible = ready.length > 0 && !dialog.isBusy && (kind.field !== "reason" || dialog.value.trim());
  return html`<form @submit=${(event) => confirm(event, dialog)}>
      <h2 id="dialog-title">${kind.title} ${subject}</h2>
      ${dialog.results ? html`<div class="preview">${isOne ? previewOfOne(dialog) : previewOfMany(dialog)}</div>` : dialog.trouble ? nothing : html`<p>Asking what would happen…</p>`}
      ${kind.field && ready.length
        ? html`<label>${kind.label}<input name=${kind.field} maxlength="256" .value=${dialog.value} ?required=${kind.field === "reason"}
            @input=${(event) => typed(event, dialog)}></label>`
        : nothing}
      ${dialog.trouble ? html`<p class="bad" role="alert">${dialog.trouble}</p>` : nothing}
      <div class="buttons">
        <button type="button" class="plain" @click=${shut}>${ready.length ? kind.stay ?? "Not now" : "Close"}</button>
        <button class="strong" ?disabled=${!isPossible}>${dialog.isBusy ? "Working…" : isOne ? kind.button : `${kind.title} ${many(ready.length, "execution")}`}</button>
      </div>
    </form>`;
}

function previewOfOne({ what, results: [{ status, body }] }) {
  if (status >= 300) return html`<p class="bad">${refusalOf(body)}</p>`;
  const found = state.execution;
  switch (what) {
    case "retry":
      return html`<p>Attempt ${body.attempt} will be queued with the same message.</p>
        <p>${budget(found?.retriesLeft)}</p>`;
    case "cancel":
      return html`<p>${found?.phase === "Running" ? "Its worker is stopped." : "It does not begin."}
        ${found?.nextRetryTime ? `The retry scheduled for ${moment(found.nextRetryTime)} is dropped.` : ""} It ends as Cancelled, which stays.</p>`;
    case "done":
      return html`<p>${found?.nextRetryTime ? `The retry scheduled for ${moment(found.nextRetryTime)} is dropped.` : "There is no scheduled retry, so nothing changes."} A worker that is at work goes on.</p>`;
    default:
      return body.attempt > (found?.attempt ?? body.attempt)
        ? html`<p>Attempt ${body.attempt} begins at once for the new assignee. ${budget(found?.retriesLeft)}</p>`
        : html`<p>Says who the work is for. ${found?.nextRetryTime ? "A retry that is scheduled for somebody else is dropped." : "Nothing else changes."}</p>`;
  }
}

function budget(left) {
  if (left === undefined) return "";
  return left > 0 ? `${left === 1 ? "1 retry" : `${left} retries`} left, ${left - 1} after this one.` : "No retry is left.";
}

function previewOfMany({ what, results }) {
  const ready = results.filter((item) => item.status < 300), refused = results.filter((item) => item.status >= 300);
  const verb = what === "retry" ? "will be queued again" : "will be cancelled";
  return html`${named(ready, verb, ({ attempt }) => (what === "retry" ? attemptOf(attempt) : `attempt ${attempt}`))}
    ${named(refused, "cannot be, and stay as they are", refusalOf)}`;
}

function named(results, verb, text) {
  if (!results.length) return nothing;
  return html`<details ?open=${results.length <= 5}><summary>${many(results.length, "execution")} ${verb}</summary>
    <ul>${results.slice(0, SHOWN).map((item) => html`<li><code>${item.taskId}</code>: ${text(item.body)}</li>`)}</ul>
    ${results.length > SHOWN ? html`<p>and ${results.length - SHOWN} more</p>` : nothing}</details>`;
}

function attemptOf(attempt) {
  const most = state.overview ? state.overview.maxRetries + 1 : null;
  return most === null ? `attempt ${attempt}` : `attempt ${attempt} of ${most} at most`;
}

function refusalOf(body) {
  if (body.error === "retry budget exhausted") return `its budget of ${body.maxRetries} retries is used up`;
  return body.error ?? "it is not possible";
}

function doneText({ what, taskIds }, done, refused) {
  if (taskIds.length > 1) return `${many(done.length, "execution")} ${KINDS[what].done}${refused ? `, ${refused} refused` : ""}.`;
  const [{ taskId, body }] = done;
  return what === "retry" ? `Attempt ${body.attempt} of ${taskId} is queued.` : `${taskId}: ${KINDS[what].done}.`;
}
