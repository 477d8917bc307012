/** The page: how it looks as a whole, and its start. lit-html touches only what differs from the frame before. */

import { html, nothing, render } from "./vendor/lit-html/lit-html.js";
import { live } from "./vendor/lit-html/directives/live.js";
import { badge } from "./badge.js";
import { controls } from "./controls.js";
import { execution } from "./execution.js";
import { many } from "./format.js";
import { close, filter } from "./navigation.js";
import { overview } from "./overview.js";
import { startReading } from "./reading.js";
import { KEPT, PHASES } from "./rows.js";
import { Session } from "./session.js";
import { signIn } from "./sign_in.js";
import { changed, config, drawWith, looked, putAway, state } from "./state.js";
import { table } from "./table.js";

const THEMES = ["auto", "light", "dark"];

function start() {
  showTheme();
  state.session = new Session(config, changed);
  drawWith(draw);
  startReading();
  setInterval(changed, 1_000); // Times are told in words that change.
  changed();
}

function draw() {
  render(page(), document.getElementById("app"));
  // Google draws its button itself, into a place that has no parts of ours.
  for (const place of document.querySelectorAll(".google:empty")) state.session.drawButton(place);
}

function page() {
  const { session } = state;
  return html`
    <a class="skip" href="#list">Skip to the executions</a>
    <header>
      <h1><img src="/dashboard/assets/icon.svg" alt="" width="26" height="26"> Executions</h1>
      ${lineState()}
      <div class="right">
        <label class="theme"><span class="hidden">Colours</span>
          <select .value=${live(state.theme)} @change=${(event) => setTheme(event.target.value)}>
            ${THEMES.map((name) => html`<option value=${name}>Colours: ${name}</option>`)}
          </select>
        </label>
        ${session.person
          ? html`<span class="person" title="Signed in">${session.person}</span>
              <button class="plain" @click=${() => session.signOut()}>Sign out</button>`
          : nothing}
      </div>
    </header>
    ${session.isSignedIn || state.dialog ? nothing : signIn()}
    ${session.person === null ? nothing : main()}
    <div class="notice" role="status" aria-live="polite">
      ${state.notice
        ? html`<p class=${state.notice.kind}>${state.notice.text}
            <button class="plain" aria-label="Put this message away" @click=${putAway}>✕</button></p>`
        : nothing}
    </div>
    ${controls()}
  `;
}

function lineState() {
  const { line, session } = state;
  let text = "Live", kind = "live";
  if (!session.isSignedIn) [text, kind] = ["Not signed in", "away"];
  else if (!line.isLive) {
    const left = line.retryAt ? Math.ceil((line.retryAt - Date.now()) / 1000) : 0;
    text = line.why ? `Not live: ${line.why}; ${left > 0 ? `again in ${left} s` : "trying"}` : "Connecting";
    kind = "away";
  }
  return html`<span class="line ${kind}" role="status"><i aria-hidden="true"></i>${text}</span>`;
}

function main() {
  const look = looked();
  return html`
    ${overview()}
    <main class=${state.taskId ? "with-panel" : ""}>
      <section class="list" id="list" aria-label="Executions">
        ${toolbar(look)} ${list(look)}
      </section>
      ${state.taskId ? execution() : nothing}
    </main>
  `;
}

function toolbar({ found, counts, projects, actors }) {
  const { filters, rows } = state;
  const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const phases = [...PHASES, ...[...counts.keys()].filter((name) => !PHASES.includes(name))];
  return html`
    <div class="toolbar" role="search">
      <input type="search" aria-label="Search by name, id, project, error, trace id or person" placeholder="Search  ( / )"
        .value=${live(filters.text)} @input=${(event) => filter({ text: event.target.value })}>
      ${choice("Project", "project", projects)} ${choice("Person", "actor", actors)}
      ${rows.isSorted ? nothing : html`<button class="plain" @click=${() => (rows.sort(), changed())}>Newest change first</button>`}
    </div>
    <div class="phases" role="group" aria-label="Filter by state">
      ${phaseButton("", "All", all)} ${phases.map((name) => phaseButton(name, name, counts.get(name) ?? 0))}
      <span class="shown" role="status">${shownText(found.length)}</span>
    </div>
  `;
}

function shownText(count) {
  if (!state.isLoaded) return `${many(count, "execution")} so far…`;
  return many(count, "execution") + (state.hasMore ? ` of the newest ${KEPT.toLocaleString("en")}` : "");
}

function choice(label, name, counts) {
  const wanted = state.filters[name];
  const names = [...counts.keys()].sort();
  if (wanted && !counts.has(wanted)) names.unshift(wanted);
  return html`<label><span class="hidden">${label}</span>
    <select .value=${live(wanted)} @change=${(event) => filter({ [name]: event.target.value })}>
      <option value="">${label}: all</option>
      ${names.map((item) => html`<option value=${item} ?selected=${item === wanted}>${item} (${counts.get(item) ?? 0})</option>`)}
    </select></label>`;
}

function phaseButton(phase, label, count) {
  const isOn = state.filters.phase === phase;
  return html`<button class="phase" aria-pressed=${isOn ? "true" : "false"} @click=${() => filter({ phase: isOn ? "" : phase })}>
    ${phase ? badge(phase) : label} <b>${count.toLocaleString("en")}</b></button>`;
}

function list({ found }) {
  if (state.isRefused) {
    return html`<div class="empty"><h2>You are not let in</h2>
      <p>This account may not use the dashboard. Whoever runs this installation can let ${state.session.person} in (<code>TASK_DASHBOARD_ALLOWED_USERS</code>, <code>TASK_DASHBOARD_GOOGLE_DOMAINS</code>), or sign in as somebody else.</p></div>`;
  }
  const trouble = state.trouble ? html`<p class="bad banner" role="alert">${state.trouble} Trying again by itself.</p>` : nothing;
  if (found.length) return html`${trouble}${table(found)}`;
  if (!state.isLoaded) return html`${trouble}<div class="empty"><p>${state.line.why ? "Executions are read as soon as the server answers; it is asked again by itself." : "Reading executions…"}</p></div>`;
  if (state.rows.order.length) {
    return html`${trouble}<div class="empty"><h2>Nothing matches</h2>
      <p>${many(state.rows.order.length, "execution")} are there, and none is what the filters ask for.</p>
      <button @click=${() => filter({ phase: "", project: "", actor: "", text: "" })}>Clear the filters</button></div>`;
  }
  return html`${trouble}<div class="empty"><h2>No executions yet</h2>
    <p>A task that is sent to the queue shows up here by itself. To send one:</p>
    <pre>alakai send --task-id my-first --prompt "say hello"</pre>
    <p>You see executions of projects that you are responsible for, and those that name nobody.</p></div>`;
}

addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !isTyping && !state.dialog) {
    event.preventDefault();
    document.querySelector("input[type=search]")?.focus();
  } else if (event.key === "Escape" && state.taskId && !state.dialog && !isTyping) {
    close();
  }
});

function setTheme(theme) {
  state.theme = theme;
  localStorage.setItem("alakai.theme", theme);
  showTheme();
  changed();
}

function showTheme() {
  if (state.theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset.theme = state.theme;
}

start();
