// Keeps the status page fresh, unless somebody pauses it or looks elsewhere.
"use strict";
const live = document.getElementById("live");
const pause = document.createElement("button");

const refresh = async () => {
    if (document.hidden || pause.getAttribute("aria-pressed") === "true") return;
    // A link that is about to be followed with the keyboard stays where it is.
    if (live.contains(document.activeElement)) return;
    try {
        const answer = await fetch("/status/live", { cache: "no-store" });
        if (!answer.ok) throw new Error(answer.statusText);
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
        live.replaceChildren(...fresh.childNodes);
    } catch {
        document.getElementById("refreshed").textContent = "This server does not answer just now.";
    }
};

// The page of one outcome has nothing that changes.
if (live) {
    pause.className = "pause";
    pause.textContent = "Pause";
    pause.setAttribute("aria-pressed", "false");
    pause.addEventListener("click", () => {
        const paused = pause.getAttribute("aria-pressed") !== "true";
        pause.setAttribute("aria-pressed", String(paused));
        pause.textContent = paused ? "Paused" : "Pause";
    });
    live.before(pause);
    setInterval(refresh, 1000);
}
