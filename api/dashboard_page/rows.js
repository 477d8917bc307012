/**
 * The rows that the page knows: one per execution, its newest event.
 *
 * A row keeps its place while it changes, so that nothing moves under the pointer; new executions come on top. `sort`
 * puts the newest change first again. Draws nothing and asks nobody.
 */

/** So many rows at most are kept; the oldest ones make room. */
export const KEPT = 10_000;

export const PHASES = ["Pending", "Running", "RetryScheduled", "Succeeded", "Failed", "Cancelled"];
const PHASE_OF = { in_progress: "Running", success: "Succeeded", error: "Failed" };

/** @typedef {{text: string, phase: string, project: string, actor: string}} Filters; "" asks for nothing. */

export class Rows {
  constructor() {
    /** By execution id. */
    this.known = new Map();
    /** Execution ids in the order shown. */
    this.order = [];
    /** Rises with every change, so that others know when to look again. */
    this.version = 0;
    this.isSorted = true;
    this.generation = 0;
  }

  /** From here on rows are read anew; what is not seen until `swept` is gone. */
  began() {
    this.generation += 1;
  }

  /** Drop what was not seen since `began`. */
  swept() {
    for (const [id, row] of this.known) if (row.generation !== this.generation) this.known.delete(id);
    this.order = this.order.filter((id) => this.known.has(id));
    this.version += 1;
  }

  /** Take a row or an event. `isNew`: it just happened, so an unknown one goes on top; else it is older than the rest. */
  put(document, { isNew }) {
    const id = document.executionId, before = this.known.get(id), row = shown(document, this.generation);
    if (before && !isAfter(row, before)) {
      before.generation = this.generation;
      return;
    }
    this.known.set(id, row);
    this.version += 1;
    if (before) {
      this.isSorted &&= this.order[0] === id;
    } else if (isNew) {
      this.order.unshift(id);
    } else {
      this.order.push(id);
    }
    // Those that somebody asked the server for stay until others come.
    if (isNew && this.order.length > KEPT) this.known.delete(this.order.pop());
  }

  sort() {
    this.order.sort((one, other) => (isAfter(this.known.get(one), this.known.get(other)) ? -1 : 1));
    this.isSorted = true;
    this.version += 1;
  }

  /** One look at all rows: those asked for, how many there are in each phase, and which projects and people occur. */
  looked(/** @type {Filters} */ filters) {
    const found = [], counts = new Map(), projects = new Map(), actors = new Map();
    const text = filters.text.trim().toLowerCase();
    for (const id of this.order) {
      const row = this.known.get(id);
      if (row.project) projects.set(row.project, (projects.get(row.project) ?? 0) + 1);
      if (row.person) actors.set(row.person, (actors.get(row.person) ?? 0) + 1);
      if (filters.project && row.project !== filters.project) continue;
      if (filters.actor && row.person !== filters.actor) continue;
      if (text && !row.said.includes(text)) continue;
      counts.set(row.phase, (counts.get(row.phase) ?? 0) + 1);
      if (!filters.phase || row.phase === filters.phase) found.push(row);
    }
    return { found, counts, projects, actors };
  }
}

/** What of a document is shown, with what is searched and counted by. */
function shown(document, generation) {
  const { executionId, taskId, taskName, project, status, attempt, errorCode, occurredAt, eventId, traceId, actor } = document;
  const person = actor?.display ?? actor?.id ?? null;
  return {
    executionId, taskId: taskId ?? null, taskName: taskName ?? null, project: project ?? null, status, attempt, errorCode,
    occurredAt, eventId, traceId, person, generation,
    changed: Date.parse(occurredAt),
    // Of two changes within a millisecond the id's last number tells which came later.
    number: Number(/\.(\d+)$/.exec(eventId ?? "")?.[1] ?? 0),
    phase: document.phase ?? PHASE_OF[status] ?? status,
    prLinks: document.prLinks ?? [],
    said: [executionId, taskId, taskName, project, errorCode, traceId, person].filter(Boolean).join("\n").toLowerCase(),
  };
}

/** Whether a row tells of something later than another one. */
function isAfter(one, other) {
  return one.changed !== other.changed ? one.changed > other.changed : one.number > other.number;
}
