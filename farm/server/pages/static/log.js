// A log of any length: a few windows of lines around the place that is looked at are in the page, and no others.
// The server turns the bytes of a line into segments of text; this script makes elements of them, never markup.
"use strict";

(() => {
  const log = document.getElementById("log");
  const path = log.dataset.path;
  const query = log.dataset.query;
  const CHUNKS_MAX = 14; // of 64 KiB
  const NEAR_PX = 1200;
  const POLL_MS = 700;
  const followButton = document.getElementById("log-follow");
  const sizeText = document.getElementById("log-size");

  let isOver = log.dataset.over === "1";
  let isLive = log.dataset.live === "1";
  let isFollowing = false;
  let busy = Promise.resolve();
  let generation = 0;
  document.querySelector(".content").classList.add("is-live");

  // --- asking the server ---

  async function ask(below, values) {
    const address = new URL(`${path}/${below}?${query}`, location.href);
    for (const [name, value] of Object.entries(values)) address.searchParams.set(name, value);
    const answer = await fetch(address, { headers: { accept: "application/json" }, cache: "no-store" });
    if (answer.status === 401) location.reload(); // the session is over
    if (!answer.ok) throw new Error(String(answer.status));
    return answer.json();
  }

  // `later` is the seam: a stream of events would resolve it as soon as the log has grown.
  const later = () => new Promise((done) => setTimeout(done, POLL_MS));

  // --- elements ---

  function lineOf([offset, segments], number) {
    const line = document.createElement("li");
    line.className = "l";
    line.id = `b${offset}`;
    const link = document.createElement("a");
    link.href = `${path}?${query}&at=${offset}#b${offset}`;
    if (number !== null) link.dataset.n = number;
    link.setAttribute("aria-label", number === null ? `Link to the line at byte ${offset}` : `Link to line ${number}`);
    const text = document.createElement("span");
    for (const [style, words] of segments) {
      if (style) {
        const part = document.createElement("span");
        part.className = style;
        part.textContent = words;
        text.append(part);
      } else text.append(words);
    }
    line.append(link, text);
    return line;
  }

  function chunkOf(window, number) {
    const chunk = document.createElement("ol");
    chunk.className = "chunk";
    chunk.dataset.start = window.start;
    chunk.dataset.end = window.end;
    chunk.dataset.next = number === null ? "" : number + window.lines.length;
    chunk.append(...window.lines.map((line, place) => lineOf(line, number === null ? null : number + place)));
    return chunk;
  }

  const first = () => log.firstElementChild;
  const last = () => log.lastElementChild;
  const startOf = (chunk) => Number(chunk.dataset.start);
  const endOf = (chunk) => Number(chunk.dataset.end);

  function seen(window) {
    log.dataset.size = window.size;
    isOver = window.over || (isOver && window.end < window.size);
    const units = ["B", "KiB", "MiB", "GiB"];
    let size = window.size;
    let unit = 0;
    while (size >= 1024 && unit < 3) [size, unit] = [size / 1024, unit + 1];
    sizeText.textContent = `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
  }

  // --- windows ---

  // One change after the other; a jump makes all that wait worthless.
  function inTurn(act) {
    const mine = generation;
    busy = busy.then(() => (mine === generation ? act(mine) : null)).catch(() => null);
    return busy;
  }

  async function loadBefore(mine) {
    const top = first();
    if (startOf(top) === 0) return;
    const window = await ask("lines", { before: startOf(top) });
    if (mine !== generation || !window.lines.length) return;
    const chunk = chunkOf(window, window.number);
    const before = log.scrollHeight;
    top.before(chunk);
    log.scrollTop += log.scrollHeight - before;
    while (log.childElementCount > CHUNKS_MAX) last().remove();
  }

  async function loadAfter(mine) {
    const bottom = last();
    const at = endOf(bottom);
    const window = await ask("lines", { after: at });
    if (mine !== generation) return;
    seen(window);
    const stays = isFollowing;
    for (const line of [...bottom.children].reverse()) {
      if (Number(line.id.slice(1)) < at || !line.id) break;
      line.remove(); // the line was not whole
    }
    if (window.lines.length) {
      const counted = Number(bottom.dataset.next) || numberAfter(bottom);
      const chunk = chunkOf(window, window.number ?? counted);
      if (bottom.childElementCount < 200 && chunk.childElementCount < 200) merge(bottom, chunk);
      else log.append(chunk);
      trimTop();
    }
    if (stays) toEnd();
  }

  function numberAfter(chunk) {
    const number = Number(chunk.lastElementChild?.firstElementChild?.dataset.n);
    return number ? number + 1 : null;
  }

  function merge(bottom, chunk) {
    if (!bottom.querySelector("[id]")) bottom.replaceChildren();
    bottom.append(...chunk.children);
    bottom.dataset.end = chunk.dataset.end;
    bottom.dataset.next = chunk.dataset.next;
  }

  function trimTop() {
    while (log.childElementCount > CHUNKS_MAX) {
      const before = log.scrollHeight;
      first().remove();
      log.scrollTop -= before - log.scrollHeight;
    }
  }

  async function show(values, at) {
    generation += 1;
    const mine = generation;
    const window = await ask("lines", values);
    if (mine !== generation) return;
    seen(window);
    log.replaceChildren(chunkOf(window, window.number));
    if (at === undefined) toEnd();
    else mark(at);
  }

  function toEnd() {
    log.scrollTop = log.scrollHeight;
  }

  function lineAt(at) {
    const exact = document.getElementById(`b${at}`);
    if (exact && log.contains(exact)) return exact;
    const lines = [...log.querySelectorAll(".l[id]")];
    return lines.findLast((line) => Number(line.id.slice(1)) <= at) ?? lines[0];
  }

  function mark(at) {
    log.querySelectorAll(".is-marked").forEach((line) => line.classList.remove("is-marked"));
    const line = lineAt(at);
    if (!line) return;
    line.classList.add("is-marked");
    line.scrollIntoView({ block: "center" });
  }

  async function goTo(at) {
    follow(false);
    if (at >= startOf(first()) && at < endOf(last()) && lineAt(at)) mark(at);
    else await show({ around: at }, at);
  }

  // --- scrolling and following ---

  const isAtEnd = () => log.scrollTop + log.clientHeight >= log.scrollHeight - 30;
  const hasMore = () => endOf(last()) < Number(log.dataset.size);

  function follow(wanted) {
    isFollowing = wanted;
    if (isLive) followButton.setAttribute("aria-pressed", String(wanted));
  }

  log.addEventListener("scroll", () => {
    if (log.scrollTop < NEAR_PX && startOf(first()) > 0) inTurn(loadBefore);
    if (log.scrollTop + log.clientHeight > log.scrollHeight - NEAR_PX && hasMore()) inTurn(loadAfter);
  }, { passive: true });
  log.addEventListener("wheel", (event) => {
    if (event.deltaY < 0) follow(false);
    else if (isAtEnd() && !hasMore()) follow(isLive);
  }, { passive: true });
  log.addEventListener("touchmove", () => follow(false), { passive: true });
  log.addEventListener("keydown", (event) => {
    if (event.key === "End" || event.key === "Home") {
      event.preventDefault();
      if (event.key === "End") last_lines();
      else goTo(0);
    } else if (event.key === "ArrowUp" || event.key === "PageUp") follow(false);
  });

  async function last_lines() {
    follow(isLive);
    if (hasMore() || isLive) await show({});
    else toEnd();
  }

  followButton.addEventListener("click", () => (isFollowing ? follow(false) : last_lines()));
  document.getElementById("log-top").addEventListener("click", () => goTo(0));
  document.getElementById("log-failure")?.addEventListener("click", async (event) => {
    event.preventDefault();
    const { at } = await ask("failure", {});
    if (at === null) return;
    history.replaceState(null, "", `${path}?${query}&at=${at}#b${at}`);
    await goTo(at);
  });
  log.addEventListener("click", (event) => {
    const link = event.target.closest(".l > a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.replaceState(null, "", link.href);
    follow(false);
    mark(Number(link.parentElement.id.slice(1)));
  });

  async function live() {
    while (isLive) {
      await later();
      if (document.hidden || hasMoreThanShown()) continue;
      try {
        await inTurn(loadAfter);
        if (isOver && !hasMore()) await end();
      } catch {
        // the server restarts
      }
    }
  }

  // A reader who looks at an older part of the log needs no newer lines.
  const hasMoreThanShown = () => !isFollowing && hasMore() && !isAtEnd();

  async function end() {
    isLive = false;
    follow(false);
    followButton.textContent = "Last lines";
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    const made = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const one of [".head"]) document.querySelector(one).replaceWith(document.adoptNode(made.querySelector(one)));
    const failing = made.getElementById("log-failure");
    if (failing && !document.getElementById("log-failure")) {
      document.getElementById("log-top").before(document.adoptNode(failing));
    }
  }

  // --- search ---

  const form = document.getElementById("log-search");
  const panel = document.getElementById("log-hits");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const words = form.elements.q.value;
    if (!words.trim()) {
      panel.hidden = true;
      return;
    }
    await find(words);
  });

  let search = 0;

  async function find(words) {
    search += 1;
    const mine = search;
    const list = document.createElement("ol");
    panel.replaceChildren(list);
    panel.hidden = false;
    let offset = 0;
    while (offset !== null && mine === search && list.childElementCount < 500) {
      const found = await ask("search", { q: words, offset });
      if (mine !== search) return;
      const isFirst = !list.childElementCount && found.hits.length;
      list.append(...found.hits.map((hit) => hitOf(hit, list)));
      if (isFirst) goTo(found.hits[0][0]);
      offset = found.next;
    }
    if (!list.childElementCount) {
      const none = document.createElement("li");
      none.className = "empty";
      none.textContent = "No line has that.";
      list.append(none);
    }
  }

  function hitOf([at, words], list) {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `${path}?${query}&at=${at}#b${at}`;
    const text = document.createElement("span");
    text.textContent = words;
    link.append(text);
    link.addEventListener("click", (event) => {
      event.preventDefault();
      list.querySelectorAll("[aria-current]").forEach((one) => one.removeAttribute("aria-current"));
      link.setAttribute("aria-current", "true");
      history.replaceState(null, "", link.href);
      goTo(at);
    });
    item.append(link);
    return item;
  }

  // --- start ---

  const hash = /^#b(\d+)$/.exec(location.hash);
  if (hash) goTo(Number(hash[1]));
  else if (log.dataset.at) goTo(Number(log.dataset.at));
  else {
    follow(isLive);
    toEnd();
  }
  if (isLive) live();
})();
