(() => {
  const steps = [...document.querySelectorAll(".step")];
  const links = [...document.querySelectorAll("#list a")];
  const equations = [...document.querySelectorAll("#jaxpr li")];
  const pane = document.getElementById("jaxpr");
  const boxes = new Map([...document.querySelectorAll("#picture [data-key]")].map((box) => [box.dataset.key, box]));
  const ways = steps.map((step) => step.dataset.boxes.split(" "));
  const at = (id) => document.getElementById(id);
  let current = 0;

  const within = (box, item) => {
    const top = item.offsetTop - box.offsetTop;
    if (top < box.scrollTop || top + item.offsetHeight > box.scrollTop + box.clientHeight)
      box.scrollTop = top - box.clientHeight / 3;
  };

  const reveal = (box) => {
    const frame = at("picture");
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
    within(at("list"), links[current]);
    const mine = equations.filter((line) => line.classList.toggle("on", line.dataset.step === String(current + 1)));
    if (mine.length && pane) within(pane, mine[mine.length - 1]);
    boxes.forEach((box) => box.classList.remove("here", "walked"));
    ways.slice(0, current).forEach(([, node]) => boxes.get(node)?.classList.add("walked"));
    ways[current].forEach((key) => boxes.get(key)?.classList.remove("walked"));
    ways[current].forEach((key) => boxes.get(key)?.classList.add("here"));
    reveal(boxes.get(ways[current][1]));
    at("back").disabled = at("first").disabled = current === 0;
    at("next").disabled = at("last").disabled = current === steps.length - 1;
    at("slider").value = current + 1;
    at("slider").setAttribute("aria-valuetext", links[current].textContent);
    at("where").textContent = `step ${current + 1} of ${steps.length}`;
    if (remember) history.replaceState(null, "", `#step-${current + 1}`);
  };

  const asked = () => Number((location.hash.match(/^#step-(\d+)$/) || [0, 0])[1]) - 1;
  const moves = { ArrowLeft: () => current - 1, ArrowRight: () => current + 1, Home: () => 0, End: () => steps.length - 1 };

  at("bar").hidden = false;
  document.documentElement.classList.add("stepping");
  at("first").onclick = () => show(0);
  at("back").onclick = () => show(current - 1);
  at("next").onclick = () => show(current + 1);
  at("last").onclick = () => show(steps.length - 1);
  at("slider").oninput = (event) => show(Number(event.target.value) - 1);
  document.addEventListener("keydown", (event) => {
    const scrolls = event.target.closest("input, #jaxpr, #picture, pre");
    if (!(event.key in moves) || scrolls || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(moves[event.key]());
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#step-"]');
    if (!link) return;
    event.preventDefault();
    show(Number(link.getAttribute("href").slice(6)) - 1);
  });
  window.addEventListener("hashchange", () => asked() >= 0 && show(asked(), false));
  show(asked() >= 0 ? asked() : 0, false);
  window.addEventListener("load", () => window.scrollTo(0, 0)); // one step is shown: there is nothing to scroll to
})();
