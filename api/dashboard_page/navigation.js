/** Where a person goes on the page: filters and the open execution, which the address keeps. */

import { askForMore, load } from "./reading.js";
import { address, changed, readAddress, state } from "./state.js";

let filtering;

export function filter(wanted) {
  Object.assign(state.filters, wanted);
  state.current = 0;
  state.selection.clear(); // Nobody acts on what they do not see any more.
  document.querySelector(".rows")?.scrollTo(0, 0);
  history.replaceState(null, "", address());
  clearTimeout(filtering);
  filtering = setTimeout(askForMore, 300);
  changed();
}

/** Open the panel of a task; null closes it. */
export function open(taskId) {
  if (taskId === state.taskId) return;
  Object.assign(state, { taskId, execution: null, executionTrouble: null, isOpening: taskId !== null });
  history.pushState(null, "", address());
  load();
  changed();
}

/** Close the panel; the keyboard goes back to its row. */
export function close() {
  const link = `a[data-task="${CSS.escape(state.taskId)}"]`;
  open(null);
  requestAnimationFrame(() => document.querySelector(link)?.focus());
}

addEventListener("popstate", () => {
  readAddress();
  load();
  changed();
});
