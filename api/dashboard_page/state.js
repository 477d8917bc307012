/**
 * All that the page shows, in one object, and its part that is kept in the address.
 *
 * Whoever changes it calls `changed`, and at the next frame the whole page is described again from it.
 */

import { Rows } from "./rows.js";

const FILTERS = ["phase", "project", "actor", "text"];
const NOTICE_MS = 8_000;

export const config = JSON.parse(document.querySelector("meta[name=alakai]").content);

export const state = {
  filters: filtersFromAddress(),
  rows: new Rows(),
  /** What `rows.looked` last told, and of which rows and filters. */
  look: null,
  /** Number of the row that the keyboard stands on, among those listed. */
  current: 0,
  /** Whether all rows there are have been read once, and whether there are more than are kept. */
  isLoaded: false,
  hasMore: false,
  /** Why rows cannot be read now; null while they can. */
  trouble: null,
  /** Whether the person who is signed in may not use the dashboard. */
  isRefused: false,
  /** Task whose panel is open, and what is known of it. */
  taskId: parameter("task"),
  execution: null,
  executionTrouble: null,
  /** Whether the keyboard is to go to the panel. */
  isOpening: false,
  overview: null,
  /** Server's clock less ours, in milliseconds. */
  skew: 0,
  /** The stream: see stream.js. */
  line: { isLive: false },
  selection: new Set(),
  /** An open dialog, see controls.js. */
  dialog: null,
  /** @type {{text: string, kind: "good" | "bad"} | null} */
  notice: null,
  theme: localStorage.getItem("alakai.theme") ?? "auto",
  /** @type {import("./session.js").Session} */
  session: null,
};

let draw = () => {}, isDue = false, noticeTimer;

/** Say how the page is drawn. */
export function drawWith(page) {
  draw = page;
}

/** Draw again at the next frame. */
export function changed() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
  });
}

/** The time by the server's clock. */
export const now = () => Date.now() + state.skew;

/** Show a message. What went wrong stays until it is put away. */
export function tell(text, kind = "good") {
  clearTimeout(noticeTimer);
  state.notice = { text, kind };
  if (kind === "good") noticeTimer = setTimeout(putAway, NOTICE_MS);
  changed();
}

export function putAway() {
  state.notice = null;
  changed();
}

/** What the filters leave of the rows; looked for again only when something changed. */
export function looked() {
  const asked = JSON.stringify([state.rows.version, state.filters]);
  if (state.look?.asked !== asked) state.look = { asked, ...state.rows.looked(state.filters) };
  return state.look;
}

function parameter(name) {
  return new URLSearchParams(location.search).get(name);
}

function filtersFromAddress() {
  return Object.fromEntries(FILTERS.map((name) => [name, parameter(name) ?? ""]));
}

/** Take filters and the open task from the address. */
export function readAddress() {
  const taskId = parameter("task");
  state.filters = filtersFromAddress();
  if (taskId !== state.taskId) Object.assign(state, { taskId, execution: null, executionTrouble: null });
}

/** The page's address, with some things changed. */
export function address(changes = {}) {
  const said = { ...state.filters, task: state.taskId ?? "", ...changes };
  const query = new URLSearchParams(Object.entries(said).filter(([, value]) => value));
  return query.size ? `?${query}` : location.pathname;
}
