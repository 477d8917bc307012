/** What is read from the server, and when: rows, the open execution, the overview, and the stream of what happens. */

import { api, Failed, textOf } from "./api.js";
import { KEPT } from "./rows.js";
import { changed, state } from "./state.js";
import { follow } from "./stream.js";

const OVERVIEW_MS = 5_000, SOON_MS = 1_000, AGAIN_MS = 250, PAGE_OF_ROWS = 200;

let isLoading = false, isWanted = false, round = 0, overviewTimer, isSoon = false;

/** Begin, and go on for as long as the page is open. */
export function startReading() {
  const open = (headers, signal) => state.session.send("/dashboard/stream", { headers, signal });
  const onState = (line) => {
    state.line = line;
    state.isRefused = line.status === 403;
    changed();
  };
  follow({ open, onState, onEvent: (kind, data) => (onEvent[kind]?.(data), changed()) }, new AbortController().signal);
  state.session.signedIn().then(() => {
    load();
    loadOverview();
  });
}

const onEvent = {
  /** Where the page starts from, also after a break that was too long to go on from. */
  reset({ tasks }) {
    state.rows.began();
    for (const row of tasks) state.rows.put(row, { isNew: state.isLoaded });
    loadRows().catch((error) => {
      state.isRefused = error.status === 403;
      changed();
    });
    load();
  },
  task(event) {
    state.rows.put(event, { isNew: true });
    if (event.taskId && event.taskId === state.taskId) load();
    loadOverviewIn(SOON_MS);
  },
  expired() {
    state.session.expire();
  },
};

/** Everything about the open task. Of many calls at once the first and the last one are enough. */
export async function load() {
  const taskId = state.taskId;
  if (!taskId) return;
  if (isLoading) {
    isWanted = true;
    return;
  }
  isLoading = true;
  let told;
  try {
    told = { execution: await api.execution(taskId), executionTrouble: null };
  } catch (error) {
    told = { executionTrouble: textOf(error) };
  }
  isLoading = false;
  if (taskId === state.taskId) Object.assign(state, told);
  changed();
  if (isWanted || taskId !== state.taskId) {
    isWanted = false;
    setTimeout(load, AGAIN_MS);
  }
}

/** Where there are more rows than are kept, the server looks for those that the filters ask for. */
export async function askForMore() {
  if (!state.hasMore) return;
  const { phase, project, actor, text } = state.filters;
  try {
    const page = await api.tasks({ limit: PAGE_OF_ROWS, status: phase, project, actor, text });
    for (const row of page.tasks) state.rows.put(row, { isNew: false });
  } catch (error) {
    state.trouble = textOf(error);
  }
  changed();
}

/** Sooner than it would be by itself; when that is already so, not sooner still. */
function loadOverviewIn(ms) {
  if (isSoon) return;
  isSoon = ms === SOON_MS;
  clearTimeout(overviewTimer);
  overviewTimer = setTimeout(loadOverview, ms);
}

async function loadOverview() {
  isSoon = false;
  if (document.visibilityState === "visible" && state.session.isSignedIn) {
    const asked = Date.now();
    try {
      state.overview = await api.overview();
      state.skew = Date.parse(state.overview.now) - (asked + Date.now()) / 2;
    } catch {
      state.overview = null; // What is away is told beside the rows.
    }
    changed();
  }
  loadOverviewIn(OVERVIEW_MS);
}

/** All rows there are, page by page, as many as are kept. Raises when this person may not read them. */
async function loadRows() {
  const mine = (round += 1);
  let cursor = null, count = 0;
  do {
    const page = await untilAnswered(() => api.tasks({ limit: PAGE_OF_ROWS, cursor }));
    if (mine !== round) return;
    for (const row of page.tasks) state.rows.put(row, { isNew: false });
    count += page.tasks.length;
    cursor = page.nextCursor;
    state.trouble = null;
    changed();
  } while (cursor && count < KEPT);
  state.rows.swept();
  Object.assign(state, { isLoaded: true, hasMore: Boolean(cursor) });
  changed();
}

async function untilAnswered(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof Failed && error.status === 403) throw error;
      state.trouble = textOf(error);
      changed();
      await new Promise((resolve) => setTimeout(resolve, (error.retryAfter ?? 3) * 1000));
    }
  }
}
