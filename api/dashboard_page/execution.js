/** One execution in full: where it stands, why, what comes next and when, what each attempt did, and the commands. */

import { html, nothing } from "./vendor/lit-html/lit-html.js";
import { badge } from "./badge.js";
import { ask } from "./controls.js";
import { duration, moment } from "./format.js";
import { close } from "./navigation.js";
import { config, now, state, tell } from "./state.js";

export function execution() {
  const { execution: found, executionTrouble: trouble, taskId } = state;
  // A panel that opens takes the keyboard along; one that only changes leaves it where it is.
  if (state.isOpening) {
    state.isOpening = false;
    requestAnimationFrame(() => document.querySelector(".panel h2")?.focus());
  }
  return html`<section class="panel" aria-labelledby="panel-title">
    <div class="title">
      <h2 id="panel-title" tabindex="-1">${taskId}</h2>
      <button class="plain" aria-label="Close" title="Close (Esc)" @click=${close}>✕</button>
    </div>
    ${trouble ? html`<p class="bad banner" role="alert">${trouble}</p>` : nothing}
    ${found ? inFull(found) : trouble ? nothing : html`<p>Reading…</p>`}
  </section>`;
}

function inFull(found) {
  return html`
    <p class="stand">${badge(found.phase)} <span>attempt ${found.attempt}${found.run ? `, run ${found.run}` : ""}</span></p>
    <div class="buttons" role="group" aria-label="What can be done">
      <button ?disabled=${!found.canRetry} title=${found.canRetry ? "" : refusal(found.retryRefusal)} @click=${() => ask("retry", [found.taskId])}>Retry…</button>
      <button ?disabled=${!found.canCancel} @click=${() => ask("cancel", [found.taskId])}>Cancel…</button>
      <button ?disabled=${!found.nextRetryTime} title=${found.nextRetryTime ? "" : "There is no scheduled retry to drop"} @click=${() => ask("done", [found.taskId])}>Mark done…</button>
      <button @click=${() => ask("assign", [found.taskId])}>Assign…</button>
    </div>
    ${found.phase === "Failed" && !found.canRetry ? html`<p class="bad">${refusal(found.retryRefusal)}.</p>` : nothing}
    <dl class="story">
      <dt>Why</dt><dd><b>${found.reason}</b>: ${found.message}</dd>
      ${found.obstacles.map((item) => html`<dt>${item.what}</dt><dd>${item.text}</dd>`)}
      <dt>Next</dt><dd>${next(found)} ${countdown(found.nextRetryTime)}</dd>
      <dt>Retries left</dt><dd>${found.retriesLeft}</dd>
    </dl>
    <dl class="facts">
      ${fact("Name", found.taskName)} ${fact("Type", found.taskType)} ${fact("Project", found.project)}
      ${fact("Asked by", found.actor?.display ?? found.actor?.id)} ${fact("Assignee", found.assignee)}
      ${fact("Launcher", found.launcher)} ${fact("Worker", found.workerId, true)} ${fact("Trace id", found.traceId, true)}
      ${found.prLinks.map((link) => fact("Pull request", link))}
      ${found.schedule?.outcome ? fact("Schedule", `${found.schedule.outcome}${found.schedule.reason ? ` (${found.schedule.reason})` : ""}`) : nothing}
    </dl>
    <h3>Attempts</h3>
    <ol class="attempts" reversed>${[...found.attempts].reverse().map(attempt)}</ol>
    <h3>Commands</h3>
    ${commands(found).map(([what, text]) => html`<div class="command"><span>${what}</span><code>${text}</code>${copy(text, what)}</div>`)}
  `;
}

function refusal(reply) {
  const texts = {
    budget_exhausted: "Its retries are used up",
    payload_lost: "Its message is lost, so there is nothing to send again",
  };
  return texts[reply] ?? "Only a failed execution can be retried";
}

function next(found) {
  if (found.canRetry) return "nothing by itself: somebody retries it, here or with kubectl";
  return found.next ?? "nothing: it is over";
}

function countdown(iso) {
  if (!iso) return nothing;
  const left = Date.parse(iso) - now();
  return html`<b class="countdown" role="timer">${left > 0 ? `in ${duration(left)}` : "any moment"}</b>`;
}

function fact(name, text, isCopied = false) {
  if (text === null || text === undefined || text === "") return nothing;
  const shown = /^https:\/\//.test(text) ? html`<a href=${text} rel="noopener noreferrer" target="_blank">${text}</a>` : text;
  return html`<dt>${name}</dt><dd>${shown} ${isCopied ? copy(text, name) : nothing}</dd>`;
}

function attempt(item) {
  const tries = item.launchTry > 1 ? `, launched ${item.launchTry} times` : "";
  return html`<li value=${item.attempt}><h4>Attempt ${item.attempt} ${badge(item.phase)}</h4>
    <p><b>${item.reason}</b>: ${item.message}${tries}</p>
    ${item.errorMessage && item.errorMessage !== item.message ? html`<pre class="error" tabindex="0">${item.errorMessage}</pre>` : nothing}
    ${item.verdict ? html`<p class="verdict">Verdict: <b>${item.verdict.grade}</b>, ${item.verdict.code ?? item.verdict.kind}, told
      ${duration(item.verdict.detectedAfterMs ?? 0)} after the first sign. ${item.verdict.refutedBy ? `It would be refuted by: ${item.verdict.refutedBy}.` : ""}</p>` : nothing}
    <ol class="moments">${moments(item).map(([at, what, detail]) =>
      html`<li><time datetime=${at}>${moment(at)}</time> <span><b>${what}</b>${detail ? html` ${detail}` : nothing}</span></li>`)}</ol>
    ${item.pullRequestUrl ? html`<dl class="facts">${fact("Pull request", item.pullRequestUrl)}</dl>` : nothing}
  </li>`;
}

/** What happened on an attempt, in the order of time. */
function moments(item) {
  const worker = item.workerId ? `worker ${item.workerId}` : "";
  const why = item.automaticRetry ? `by automatic retry ${item.automaticRetry}${item.fallbackMode ? `, ${item.fallbackMode}` : ""}` : "";
  const found = [
    [item.claimedAt, "Claimed", why],
    [item.startTime, "Started", worker],
    ...(item.evidence ?? []).map((seen) => [seen.observedAt, "Seen", `${seen.detail} (${seen.source})`]),
    [item.verdict?.spokenAt, "Judged", item.verdict?.message],
    [item.finishTime, item.phase, item.errorCode],
    ...item.lateResults.map((late) => [late.receivedAt, "Reported late", `${late.status}${late.message ? `: ${late.message}` : ""}; kept as evidence`]),
  ].filter(([at]) => at);
  return found.sort(([one], [other]) => Date.parse(one) - Date.parse(other));
}

function commands({ taskId, resourceName, traceId, canRetry }) {
  const namespace = config.namespace ? ` -n ${config.namespace}` : "";
  return [
    ["See the resource", `kubectl${namespace} get execution ${resourceName} -o yaml`],
    ...(canRetry ? [["Retry it", `kubectl${namespace} annotate execution ${resourceName} --overwrite alakai.dev/retry="$(date +%s)"`]] : []),
    ["Explain it", `alakai explain ${taskId}`],
    ...(traceId ? [["Follow its trace", `alakai trace ${traceId}`]] : []),
  ];
}

function copy(text, what) {
  const put = async () => {
    try {
      await navigator.clipboard.writeText(text);
      tell(`Copied: ${what.toLowerCase()}`);
    } catch {
      tell("The browser does not let this page copy; select the text instead.", "bad");
    }
  };
  return html`<button class="plain copy" aria-label="Copy: ${what}" @click=${put}>Copy</button>`;
}
