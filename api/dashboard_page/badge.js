/** The state of an execution or attempt in words, with a sign: colour alone does not tell everybody. */

import { html } from "./vendor/lit-html/lit-html.js";

const SIGNS = { Pending: "○", Running: "▶", RetryScheduled: "↻", Succeeded: "✓", Failed: "✕", Cancelled: "⊘" };

export const badge = (phase) =>
  html`<span class="badge ${phase}"><span aria-hidden="true">${SIGNS[phase] ?? "·"}</span> ${phase === "RetryScheduled" ? "Retry scheduled" : phase}</span>`;
