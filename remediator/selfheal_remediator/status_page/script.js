"use strict";
// Asks for the page again and replaces what has changed. Without this script the browser reloads it.
(() => {
  const EVERY = 5000, PATIENCE = 10000;
  const button = document.getElementById("pause");
  const note = document.getElementById("connection");
  let paused = false;
  const time = () => new Date().toISOString().slice(11, 19) + " UTC";
  let shown = time();
  const say = (text) => { if (note.textContent !== text) note.textContent = text; };

  async function update() {
    if (paused || document.hidden) return;
    if (!getSelection().isCollapsed) {
      say("Updates wait while text is selected.");
      return;
    }
    try {
      const answer = await fetch(location.pathname,
        {cache: "no-store", signal: AbortSignal.timeout(PATIENCE)});
      if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!page.getElementById("summary")) throw new Error("another page came");
      if (paused) return;
      for (const old of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(old.id);
        if (old.innerHTML !== fresh.innerHTML) old.replaceChildren(...fresh.childNodes);
      }
      document.title = page.title;
      shown = time();
      const stale = page.querySelector("#summary .note.bad");
      say(stale ? `${stale.firstChild.textContent} What is shown may be wrong by now.` : "");
    } catch (error) {
      say(`No answer from the remediator: what is shown is as of ${shown}. (${error.message})`);
    }
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume updates" : "Pause updates";
    say(paused ? `Updates are paused since ${time()}.` : "");
    update();
  });
  document.addEventListener("visibilitychange", update);
  (async () => {
    for (;;) {
      await new Promise((wait) => setTimeout(wait, EVERY));
      await update();
    }
  })();
})();
