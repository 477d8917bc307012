/**
 * Who is signed in, and requests in their name.
 *
 * A request that is refused because nobody is (any more) waits until somebody has signed in, and is sent again: the page
 * keeps all that it shows meanwhile. A Google token is kept in memory only.
 */

const GOOGLE_CLIENT = "https://accounts.google.com/gsi/client";
const DEV_USER = "alakai.devUser";
const EARLY_MS = 60_000;

export class Session {
  /** @param {{googleClientId: string|null, isLocal: boolean}} config  @param {() => void} changed */
  constructor(config, changed) {
    this.config = config;
    /** Shown as who is signed in; null: nobody. */
    this.person = null;
    /** Whether somebody was signed in and has to do it again. */
    this.isExpired = false;
    /** Why Google cannot be used; null while it can. */
    this.trouble = null;
    this._changed = changed;
    this._headers = {};
    this._waiting = [];
    this._google = null;
    if (config.isLocal && localStorage.getItem(DEV_USER)) this.signInAs(localStorage.getItem(DEV_USER));
    if (config.googleClientId && !this.person) this._loadGoogle();
  }

  get isSignedIn() {
    return this.person !== null && !this.isExpired;
  }

  /** On a developer's machine. */
  signInAs(email) {
    localStorage.setItem(DEV_USER, email);
    this._begin(email, { "x-dev-user": email });
  }

  signOut() {
    localStorage.removeItem(DEV_USER);
    this._google?.disableAutoSelect();
    location.reload();
  }

  /** The answer to a request, sent as whoever is signed in; waits for somebody who is. */
  async send(path, options = {}) {
    for (;;) {
      await this.signedIn();
      const headers = this._headers;
      const response = await fetch(path, { ...options, headers: { ...options.headers, ...headers }, cache: "no-store" });
      if (response.status !== 401) return response;
      // Another request may have found out first, and somebody may have signed in since.
      if (headers === this._headers) this.expire();
    }
  }

  /** Resolves as soon as somebody is signed in. */
  signedIn() {
    return this.isSignedIn ? Promise.resolve() : new Promise((resolve) => this._waiting.push(resolve));
  }

  expire() {
    if (this.isExpired) return;
    this.isExpired = this.person !== null;
    if (!this.isExpired) this.person = null;
    if (this.config.isLocal && this._headers["x-dev-user"]) localStorage.removeItem(DEV_USER);
    this._google?.prompt();
    this._changed();
  }

  /** Put Google's own button into an element, as soon as Google's script is there. */
  drawButton(element) {
    this._google?.renderButton(element, { theme: "outline", size: "large", text: "signin_with" });
  }

  _begin(person, headers) {
    const isOther = this.person !== null && this.person !== person;
    this.person = person;
    this.isExpired = false;
    this._headers = headers;
    // Who sees what differs: nothing of what the other one saw stays.
    if (isOther) location.reload();
    for (const resume of this._waiting.splice(0)) resume();
    this._changed();
  }

  _loadGoogle() {
    if (document.querySelector(`script[src="${GOOGLE_CLIENT}"]`)) return;
    const script = document.createElement("script");
    script.src = GOOGLE_CLIENT;
    script.onload = () => {
      this._google = window.google.accounts.id;
      this._google.initialize({
        client_id: this.config.googleClientId,
        auto_select: true,
        callback: ({ credential }) => this._signedInWithGoogle(credential),
      });
      this.trouble = null;
      this._google.prompt();
      this._changed();
    };
    script.onerror = () => {
      script.remove();
      this.trouble = "Google's sign-in cannot be loaded: check the connection, or what blocks accounts.google.com";
      this._changed();
    };
    document.head.append(script);
  }

  _signedInWithGoogle(credential) {
    // Read for show and for the timer only; the server checks it.
    const said = JSON.parse(new TextDecoder().decode(bytesOf(credential.split(".")[1])));
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._google.prompt(), Math.max(said.exp * 1000 - Date.now() - EARLY_MS, 1000));
    this._begin(said.email, { authorization: `Bearer ${credential}` });
  }
}

const bytesOf = (base64url) =>
  Uint8Array.from(atob(base64url.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
