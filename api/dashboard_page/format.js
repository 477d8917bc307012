/** How times and numbers are written. Pure. */

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

/** A length of time as people say it: "8 s", "3 min 20 s", "2 h 5 min", "4 d". */
export function duration(ms) {
  const whole = Math.max(Math.round(ms / SECOND) * SECOND, 0);
  if (whole < MINUTE) return `${whole / SECOND} s`;
  if (whole < HOUR) return pair(whole, MINUTE, "min", SECOND, "s");
  if (whole < DAY) return pair(whole, HOUR, "h", MINUTE, "min");
  return `${Math.floor(whole / DAY)} d`;
}

function pair(ms, large, largeName, small, smallName) {
  const rest = Math.floor((ms % large) / small);
  return `${Math.floor(ms / large)} ${largeName}` + (rest ? ` ${rest} ${smallName}` : "");
}

/** How long ago, in one unit: what changes every second elsewhere would only flicker. */
export function ago(ms) {
  if (ms < 10 * SECOND) return "now";
  if (ms < MINUTE) return `${Math.floor(ms / SECOND / 10) * 10} s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min`;
  if (ms < DAY) return `${Math.floor(ms / HOUR)} h`;
  return `${Math.floor(ms / DAY)} d`;
}

/** A moment in the reader's own time zone, with the day when it is not today. */
export function moment(iso, now = Date.now()) {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return iso;
  const isToday = time.toDateString() === new Date(now).toDateString();
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  return time.toLocaleString(undefined, isToday ? clock : { ...clock, year: "numeric", month: "short", day: "numeric" });
}

/** "1 task", "2 tasks". */
export const many = (count, one) => `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;
