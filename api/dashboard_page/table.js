/**
 * The list. Only the rows in sight are in the document, so that thousands cost no more than a few; a screen reader is
 * told how many there are. Arrow keys move from row to row, Enter opens, Space selects.
 */

import { html, nothing } from "./vendor/lit-html/lit-html.js";
import { live } from "./vendor/lit-html/directives/live.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { badge } from "./badge.js";
import { ask } from "./controls.js";
import { ago, moment, many } from "./format.js";
import { open } from "./navigation.js";
import { address, changed, looked, now, state } from "./state.js";

const AROUND = 8; // rows beyond what is in sight
const MOVES = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };

const viewport = () => document.querySelector(".rows");

let rowHeight = 0;

/** Row height in pixels, which the style sheet says: rows are lower where there is room beside each other. */
function height() {
  rowHeight ||= parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
  return rowHeight;
}

export function table(rows) {
  const row = height(), element = viewport();
  const top = element?.scrollTop ?? 0, seen = element?.clientHeight ?? innerHeight;
  const first = Math.max(Math.min(Math.floor(top / row), rows.length) - AROUND, 0);
  const last = Math.min(Math.ceil((top + seen) / row) + AROUND, rows.length);
  state.current = Math.max(Math.min(state.current, rows.length - 1), 0);
  const chosen = state.selection.size;
  const isAll = chosen > 0 && chosen >= rows.filter((item) => item.taskId).length;
  return html`
    ${chosen ? selectionBar(chosen) : nothing}
    <div class="table" role="table" aria-label="Executions" aria-rowcount=${rows.length + 1}>
      <div role="rowgroup" class="head"><div role="row" class="row" aria-rowindex="1">
        <span role="columnheader" class="select"><input type="checkbox" aria-label="Select all that are listed"
          .checked=${live(isAll)} .indeterminate=${live(chosen > 0 && !isAll)} @change=${(event) => selectAll(rows, event.target.checked)}></span>
        <span role="columnheader" class="state">State</span><span role="columnheader" class="task">Task</span>
        <span role="columnheader" class="project">Project</span><span role="columnheader" class="attempt">Attempt</span>
        <span role="columnheader" class="who">Asked by</span><span role="columnheader" class="why">Error</span>
        <span role="columnheader" class="when">Changed</span>
      </div></div>
      <div role="rowgroup" class="rows" @scroll=${changed} @keydown=${onKey}>
        <div role="presentation" class="spacer" .style=${`height: ${rows.length * row}px`}>
          <div role="presentation" class="window" .style=${`transform: translateY(${first * row}px)`}>
            ${repeat(rows.slice(first, last), (item) => item.executionId, (item, index) => line(item, first + index))}
          </div>
        </div>
      </div>
    </div>`;
}

function line(row, index) {
  const name = row.taskName ?? row.executionId, task = row.taskId ?? row.executionId;
  const isOpen = task === state.taskId;
  return html`<div role="row" class="row ${isOpen ? "open" : ""}" aria-rowindex=${index + 2} @click=${(event) => onClick(event, task, index)}>
    <span role="cell" class="select">${row.taskId
      ? html`<input type="checkbox" tabindex="-1" aria-label="Select ${row.executionId}" .checked=${live(state.selection.has(row.taskId))}
          @change=${(event) => select(row.taskId, event.target.checked)}>`
      : nothing}</span>
    <span role="cell" class="state">${badge(row.phase)}</span>
    <span role="cell" class="task"><a href=${address({ task })} data-task=${task} data-index=${index} tabindex=${index === state.current ? 0 : -1}
      aria-current=${isOpen ? "true" : "false"} title=${row.executionId}>${row.executionId}</a>
      ${name === row.executionId ? nothing : html`<small>${name}</small>`}</span>
    <span role="cell" class="project" title=${row.project ?? ""}>${row.project ?? ""}</span>
    <span role="cell" class="attempt">${row.attempt ?? ""}</span>
    <span role="cell" class="who" title=${row.person ?? ""}>${row.person ?? ""}</span>
    <span role="cell" class="why" title=${row.errorCode ?? ""}>${row.errorCode ?? ""}</span>
    <span role="cell" class="when" title=${moment(row.occurredAt)}>${ago(now() - row.changed)}</span>
  </div>`;
}

function selectionBar(count) {
  const taskIds = [...state.selection];
  return html`<div class="selection" role="group" aria-label="Selected executions"><b>${many(count, "execution")} selected</b>
    <button @click=${() => ask("retry", taskIds)}>Retry…</button>
    <button @click=${() => ask("cancel", taskIds)}>Cancel…</button>
    <button class="plain" @click=${() => (state.selection.clear(), changed())}>Clear</button></div>`;
}

function select(taskId, isChosen) {
  state.selection[isChosen ? "add" : "delete"](taskId);
  changed();
}

function selectAll(rows, isChosen) {
  state.selection = new Set(isChosen ? rows.map((row) => row.taskId).filter(Boolean) : []);
  changed();
}

function onClick(event, task, index) {
  // A click with a key held opens a tab of its own, as with every link.
  if (event.target.closest("input") || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  state.current = index;
  open(task);
}

function onKey(event) {
  const rows = looked().found;
  if (event.key in MOVES) {
    event.preventDefault();
    goTo(Math.max(Math.min(state.current + MOVES[event.key], rows.length - 1), 0));
  } else if (event.key === " " && event.target.matches("a") && rows[state.current]?.taskId) {
    event.preventDefault();
    select(rows[state.current].taskId, !state.selection.has(rows[state.current].taskId));
  }
}

/** Bring a row into sight, and the keyboard to it. */
function goTo(index) {
  state.current = index;
  const element = viewport(), row = height();
  if (index * row < element.scrollTop) element.scrollTop = index * row;
  if ((index + 1) * row > element.scrollTop + element.clientHeight) element.scrollTop = (index + 1) * row - element.clientHeight;
  changed();
  requestAnimationFrame(() => document.querySelector(`a[data-index="${index}"]`)?.focus({ preventScroll: true }));
}

addEventListener("resize", () => {
  rowHeight = 0;
  changed();
});
