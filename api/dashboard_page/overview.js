/** What holds for the whole installation: a hold, open breakers, slots. */

import { html, nothing } from "./vendor/lit-html/lit-html.js";
import { duration, many, moment } from "./format.js";
import { now, state } from "./state.js";

export function overview() {
  const found = state.overview;
  if (!found) return nothing;
  return html`<section class="overview" aria-label="Installation">
    ${found.hold
      ? html`<p class="bad banner"><b>On hold</b> by ${found.hold.by} since ${moment(found.hold.since)}: ${found.hold.reason}.
          Nothing is taken in and nothing is launched until <code>alakai resume</code>.</p>`
      : nothing}
    ${found.breakers.map(
      (breaker) => html`<p class="bad banner"><b>Breaker open</b>: launches of ${breaker.taskType} on ${breaker.launcher} fail with
        ${breaker.code} since ${moment(breaker.openedAt)}; one is let through ${soon(breaker.probeAt)}.</p>`,
    )}
    <details class="slots">
      <summary>${meter("Slots", found.slots)}${found.hold ? nothing : html`<span>not on hold</span>`}
        <span>${found.breakers.length ? many(found.breakers.length, "open breaker") : "no open breaker"}</span></summary>
      ${found.types.length
        ? html`<ul>${found.types.map((type) => html`<li>${meter(type.taskType, type)}</li>`)}</ul>`
        : html`<p>No attempt is live, none waits, and no task type has a limit of its own.</p>`}
    </details>
  </section>`;
}

function meter(name, { limit, live, waiting }) {
  return html`<span>${name}: ${live}${limit === null ? " live, no limit" : ` of ${limit}`}${waiting ? `, ${waiting} waiting` : ""}
    ${limit === null ? nothing : html`<meter min="0" max=${limit} high=${limit * 0.9} .value=${live} aria-label="${name} in use"></meter>`}</span>`;
}

function soon(iso) {
  const left = Date.parse(iso) - now();
  return left > 0 ? `in ${duration(left)}` : "now";
}
