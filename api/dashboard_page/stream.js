/**
 * Follows the stream of events and goes on where it was after every break.
 *
 * Read with fetch and not with EventSource, which cannot send a header: a token in an address ends up in logs.
 */

const SILENT_MS = 45_000; // three heartbeats
const FIRST_PAUSE_MS = 500, LAST_PAUSE_MS = 15_000;

/**
 * @param {object} told
 * @param {(headers: object, signal: AbortSignal) => Promise<Response>} told.open  resolves with the answer, signed in
 * @param {(kind: string, data: object) => void} told.onEvent  "reset", "task" or "expired"
 * @param {(state: {isLive: boolean, why?: string, status?: number, retryAt?: number}) => void} told.onState
 */
export async function follow({ open, onEvent, onState }, signal) {
  let lastEventId = null, failures = 0;
  while (!signal.aborted) {
    const broken = new AbortController();
    const ended = AbortSignal.any([signal, broken.signal]);
    let why = "the server ended the connection", seconds = 0, status;
    try {
      const response = await open(lastEventId === null ? {} : { "last-event-id": lastEventId }, ended);
      if (response.ok) {
        onState({ isLive: true });
        failures = 0;
        for await (const event of eventsOf(response.body, broken)) {
          if (event.id) lastEventId = event.id;
          if (event.kind) onEvent(event.kind, event.data);
        }
      } else {
        status = response.status;
        why = `the server answers ${status}`;
        seconds = Number(response.headers.get("retry-after")) || 0;
        if (status < 500 && status !== 429) failures += 5; // Asking again soon changes nothing.
      }
    } catch (error) {
      if (signal.aborted) return;
      why = broken.signal.aborted ? "nothing was heard for 45 s" : "the server cannot be reached";
    }
    failures += 1;
    const pause = Math.max(seconds * 1000, Math.min(FIRST_PAUSE_MS * 2 ** (failures - 1), LAST_PAUSE_MS) * (0.75 + Math.random() / 2));
    onState({ isLive: false, why, status, retryAt: Date.now() + pause });
    await waited(pause, signal);
  }
}

/** For so long, or until the browser says that it is online again. */
function waited(ms, signal) {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      removeEventListener("online", over);
      signal.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, ms);
    addEventListener("online", over);
    signal.addEventListener("abort", over);
  });
}

/** Server-sent events of a body, by the format's rules (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
async function* eventsOf(body, broken) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", timer;
  try {
    for (;;) {
      timer = setTimeout(() => broken.abort(), SILENT_MS);
      const { value, done } = await reader.read();
      clearTimeout(timer);
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) yield eventOf(block);
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}

function eventOf(block) {
  const event = { id: null, kind: null, data: null };
  for (const line of block.split("\n")) {
    const [, name, text] = /^(\w*):? ?(.*)$/.exec(line) ?? [];
    if (name === "id") event.id = text;
    if (name === "event") event.kind = text;
    if (name === "data") event.data = JSON.parse(text);
  }
  return event;
}
