"use strict";
// Extras: the arrow keys within a program, what belongs together in it, the page that is shown marked in the list of
// pages, the focus at its heading.
const all = document.getElementById("all");
const shown = () => [...all.children].find((page) => page.tagName === "SECTION" && getComputedStyle(page).display !== "none");

function mark(event) {
  const here = document.querySelector(":target") === all ? "all" : shown().id;
  for (const link of document.querySelectorAll("nav.pages a")) {
    if (link.hash === "#" + here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (event && document.getElementById(location.hash.slice(1))?.tagName === "SECTION") focusHeading();
}

function focusHeading() {
  const heading = shown().querySelector("h2");
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  focusHeading();
  shown().scrollIntoView();
});

document.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.matches?.(".explorer .source")) return;
  const lines = [...event.target.closest(".explorer").querySelectorAll(".source[tabindex]")];
  lines[lines.indexOf(event.target) + step]?.focus();
  event.preventDefault();
});

for (const kind of ["pointerover", "focusin", "focusout"]) {
  document.addEventListener(kind, (event) => {
    for (const item of document.querySelectorAll(".made .same")) item.classList.remove("same");
    const focused = kind === "focusout" ? event.relatedTarget : document.activeElement;
    const item = (kind === "pointerover" && event.target.closest("[data-of]")) || focused?.closest("[data-of]");
    for (const other of item?.closest(".explorer").querySelectorAll(`[data-of="${item.dataset.of}"]`) ?? [])
      other.classList.add("same");
  });
}

addEventListener("hashchange", mark);
addEventListener("load", () => mark()); // an address has its page only then
