/** The form that asks who somebody is: Google's button, and on a developer's machine any address. */

import { html, nothing } from "./vendor/lit-html/lit-html.js";
import { config, state } from "./state.js";

export function signIn() {
  const { session } = state;
  const title = session.isExpired ? "Your sign-in has ended" : "Sign in";
  const submit = (event) => {
    event.preventDefault();
    session.signInAs(new FormData(event.target).get("email").trim());
  };
  return html`<section class="sign-in" aria-labelledby="sign-in-title">
    <h2 id="sign-in-title">${title}</h2>
    ${session.isExpired ? html`<p>Sign in again to go on. What you see stays as it was, and nothing is lost.</p>` : nothing}
    ${config.googleClientId
      ? html`<div class="google"></div>
          ${session.trouble ? html`<p class="bad" role="alert">${session.trouble}</p>` : nothing}`
      : nothing}
    ${config.isLocal
      ? html`<form @submit=${submit}>
          <label>E-mail (this machine only, nothing is checked)
            <input name="email" type="email" required autocomplete="email" placeholder="you@local"></label>
          <button>Sign in</button>
        </form>`
      : nothing}
  </section>`;
}
