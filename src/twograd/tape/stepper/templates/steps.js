// Any number of walks in a page, each an element of class "walk", told by the parts of steps.html.j2: one step at a time.
(() => {
  const moves = { ArrowLeft: (at) => at - 1, ArrowRight: (at) => at + 1, Home: () => 0, End: () => Infinity };
  const buttons = { first: moves.Home, back: moves.ArrowLeft, next: moves.ArrowRight, last: moves.End };
  const walks = new Map([...document.querySelectorAll(".walk")].map((root) => [root, walk(root)]));

  function walk(root) {
    const steps = [...root.querySelectorAll(".step")];
    const links = [...root.querySelectorAll(".list a")];
    const equations = [...root.querySelectorAll(".equations li")];
    const pane = root.querySelector(".equations"), frame = root.querySelector(".graph .scroll");
    const boxes = new Map([...frame.querySelectorAll("[data-key]")].map((box) => [box.dataset.key, box]));
    const ways = steps.map((step) => step.dataset.boxes.split(" "));
    const slider = root.querySelector(".slide input");
    let current = 0;

    const within = (box, item) => {
      if (item.offsetTop < box.scrollTop || item.offsetTop + item.offsetHeight > box.scrollTop + box.clientHeight)
        box.scrollTop = item.offsetTop - box.clientHeight / 3;
    };

    const reveal = (box) => {
      if (!box || !frame.clientHeight) return;
      const outer = frame.getBoundingClientRect(), inner = box.getBoundingClientRect();
      if (inner.top < outer.top || inner.bottom > outer.bottom)
        frame.scrollTop += inner.top - outer.top - (frame.clientHeight - inner.height) / 2;
      if (inner.left < outer.left || inner.right > outer.right)
        frame.scrollLeft += inner.left - outer.left - (frame.clientWidth - inner.width) / 2;
    };

    const show = (index, remember = true) => {
      current = Math.max(0, Math.min(steps.length - 1, index));
      steps.forEach((step, i) => step.classList.toggle("shown", i === current));
      links.forEach((link, i) => i === current ? link.setAttribute("aria-current", "step") : link.removeAttribute("aria-current"));
      within(links[current].closest("ol"), links[current]);
      const mine = equations.filter((line) => line.classList.toggle("on", line.dataset.step === String(current + 1)));
      if (mine.length) within(pane, mine[mine.length - 1]);
      boxes.forEach((box) => box.classList.remove("here", "walked"));
      ways.slice(0, current).forEach(([, node]) => boxes.get(node)?.classList.add("walked"));
      ways[current].forEach((key) => boxes.get(key)?.classList.remove("walked"));
      ways[current].forEach((key) => boxes.get(key)?.classList.add("here"));
      reveal(boxes.get(ways[current][1]));
      for (const button of root.querySelectorAll("[data-to]")) {
        const end = "first back".includes(button.dataset.to) ? 0 : steps.length - 1;
        button.setAttribute("aria-disabled", current === end); // and not "disabled": it would lose the focus
      }
      slider.value = current + 1;
      slider.setAttribute("aria-valuetext", links[current].textContent);
      root.querySelector("output").textContent = steps[current].querySelector(".name small").textContent;
      if (remember) history.replaceState(null, "", "#" + steps[current].id);
    };

    root.querySelector(".bar").hidden = false;
    root.classList.add("stepping");
    show(0, false);
    root.closest("details")?.addEventListener("toggle", () => show(current, false)); // what was folded has no places
    slider.addEventListener("input", () => show(Number(slider.value) - 1));
    root.addEventListener("click", ({ target }) => {
      const to = target.closest("[data-to]")?.dataset.to, key = target.closest(".graph [data-key]")?.dataset.key;
      const step = ways.findIndex((keys) => keys.includes(key));
      if (to) show(buttons[to](current));
      else if (step >= 0) show(step);
    });
    return {
      move: (to) => show(to(current)),
      go: (step, remember) => show(steps.indexOf(step), remember),
    };
  }

  const asked = (hash) => document.getElementById(hash.slice(1))?.closest(".walk .step");

  function go(step, remember) {
    const root = step.closest(".walk");
    root.closest("details")?.setAttribute("open", "");
    walks.get(root).go(step, remember);
    return root;
  }

  document.addEventListener("keydown", (event) => {
    const found = walks.get(event.target.closest(".walk")), to = moves[event.key];
    if (!found || !to || event.target.closest("input, .scroll[tabindex], pre")) return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    found.move(to);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]'), step = link && asked(link.hash);
    if (!step) return;
    event.preventDefault();
    const root = go(step, true);
    if (root.contains(link)) return;
    step.querySelector(".name").tabIndex = -1;
    step.querySelector(".name").focus({ preventScroll: true });
    root.scrollIntoView();
  });
  const follow = () => asked(location.hash) && go(asked(location.hash), false).scrollIntoView();
  addEventListener("hashchange", follow);
  addEventListener("load", follow); // what an address shows is laid out only then
})();
