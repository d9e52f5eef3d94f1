// Keeps the parts of a page that change up to date, and adds a few keys. Every page works without it.
"use strict";

document.documentElement.classList.add("has-script");

// --- parts that change ---
// An element with `data-live` is replaced by the one of the same name in the page as the server makes it now.
// `onChange` is the seam: it asks again after a time. A stream of events can call `refresh` in its place.

const EVERY_MS = 2000;
const SLOWEST_MS = 30000;

function parts(root) {
  return new Map([...root.querySelectorAll("[data-live]")].map((one) => [one.dataset.live, one]));
}

function isInUse(part) {
  const active = document.activeElement;
  if (part.contains(active) && active.matches("input, textarea, select")) return true;
  return String(getSelection()) !== "" && part.contains(getSelection().anchorNode);
}

function openDetails(part) {
  return [...part.querySelectorAll("details")].map((one) => one.open);
}

// A person's open details are no difference.
function same(before, after) {
  const bare = (one) => one.outerHTML.replaceAll(/<details([^>]*) open=""/g, "<details$1");
  return bare(before) === bare(after);
}

function replace(part, made) {
  const open = openDetails(part);
  const id = part.contains(document.activeElement) ? pathOf(part, document.activeElement) : null;
  const next = document.adoptNode(made);
  next.querySelectorAll("details").forEach((one, place) => {
    if (open[place] !== undefined) one.open = open[place];
  });
  const scrolled = [...part.querySelectorAll(".chain, .scroll, .excerpt")].map((one) => [one.scrollLeft, one.scrollTop]);
  part.replaceWith(next);
  next.querySelectorAll(".chain, .scroll, .excerpt").forEach((one, place) => {
    if (scrolled[place]) [one.scrollLeft, one.scrollTop] = scrolled[place];
  });
  if (id !== null) elementAt(next, id)?.focus({ preventScroll: true });
}

function pathOf(root, element) {
  const path = [];
  for (let one = element; one !== root; one = one.parentElement) path.unshift([...one.parentElement.children].indexOf(one));
  return path;
}

function elementAt(root, path) {
  return path.reduce((one, place) => one?.children[place], root);
}

async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
  if (answer.redirected) return location.reload(); // the session is over
  if (!answer.ok) throw new Error(String(answer.status));
  const made = parts(new DOMParser().parseFromString(await answer.text(), "text/html"));
  let before = null;
  for (const [name, next] of made) {
    const part = parts(document).get(name);
    if (!part && before) before.after(document.adoptNode(next));
    else if (part && !isInUse(part) && !same(part, next)) replace(part, next);
    before = parts(document).get(name) ?? before;
  }
}

function onChange(act) {
  let wait = EVERY_MS;
  const again = async () => {
    if (!document.hidden) {
      try {
        await act();
        wait = EVERY_MS;
      } catch {
        wait = Math.min(SLOWEST_MS, 2 * wait); // the server restarts, or is busy
      }
    }
    setTimeout(again, wait);
  };
  setTimeout(again, wait);
}

if (document.querySelector("[data-live]:not(.log)") && !document.getElementById("log")) onChange(refresh);

// --- keys and buttons ---

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) return;
  const field = document.querySelector("[data-key='/']");
  if (field) {
    event.preventDefault();
    field.focus();
  }
});

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}
