/** What the server is asked for, with its refusals as errors. */

import { state } from "./state.js";

/** A refusal. `status` is HTTP's, `retryAfter` in seconds where the server says so. */
export class Failed extends Error {
  constructor(status, body, retryAfter) {
    super(TEXTS[status] ?? TEXTS_OF_ERRORS[body?.error] ?? body?.error ?? `The server answers ${status}.`);
    this.status = status;
    this.body = body;
    this.retryAfter = retryAfter;
  }
}

const TEXTS = {
  403: "This account may not use the dashboard.",
  429: "Too many requests at once.",
  500: "The server has a fault; its log says which.",
  502: "Redis or the queue cannot be used right now.",
  503: "The server cannot answer right now.",
};
const TEXTS_OF_ERRORS = {
  "execution not found": "There is no record of this task, or it is not for you to see.",
};

async function asked(path, { query = {}, body, ...options } = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null && value !== "" && value !== undefined));
  const sent = body === undefined ? options : { ...options, body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await state.session.send(parameters.size ? `${path}?${parameters}` : path, sent);
  const said = await response.json().catch(() => null);
  if (!response.ok) throw new Failed(response.status, said, Number(response.headers.get("retry-after")) || undefined);
  return said;
}

/** What an error says to people. */
export const textOf = (error) => (error instanceof Failed ? error.message : "The server cannot be reached.");

const ofTask = (taskId) => `/dashboard/executions/${encodeURIComponent(taskId)}`;

export const api = {
  tasks: (query) => asked("/dashboard/tasks", { query }),
  overview: () => asked("/dashboard/overview"),
  execution: (taskId) => asked(ofTask(taskId)),
  /** `what`: retry, cancel, done or assign. */
  control: (what, taskId, body, { dryRun }) =>
    asked(`${ofTask(taskId)}/${what}`, { method: "POST", body, query: dryRun ? { dryRun } : {} }),
  /** `what`: retry or cancel. */
  controlMany: (what, taskIds, body, { dryRun }) =>
    asked(`/dashboard/executions/${what}`, { method: "POST", body: { selector: { taskIds }, limit: 200, dryRun, ...body } }),
};
