"use strict";
for (const table of document.querySelectorAll("table.sort")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const key = (row, i) => { const c = row.cells[i]; return c.dataset.k ?? c.textContent.trim(); };
  heads.forEach((th, i) => {
    const button = document.createElement("button");
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => {
      const numeric = th.classList.contains("n");
      const before = th.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numeric;
      const sign = down ? -1 : 1;
      heads.forEach(h => h.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (a, b) => {
        const x = key(a, i), y = key(b, i);
        if (!numeric) return sign * x.localeCompare(y, "en");
        const p = parseFloat(x), q = parseFloat(y);
        return isNaN(p) || isNaN(q) ? isNaN(p) - isNaN(q) : sign * (p - q);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
for (const map of document.querySelectorAll("figure.map")) {
  const say = map.querySelector(".say");
  for (const drawing of map.querySelectorAll("svg")) {
    const points = [...drawing.querySelectorAll(".point")];
    points.forEach((point, i) => {
      const tell = () => { say.textContent = point.dataset.say; };
      point.addEventListener("pointerenter", tell);
      point.addEventListener("focus", tell);
      point.addEventListener("keydown", event => {
        const ends = { Home: 0, End: points.length - 1 };
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const next = points[ends[event.key] ?? (step === undefined ? -1 : i + step)];
        if (!next) return;
        event.preventDefault();
        point.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      });
    });
  }
}
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open], .screen)")];
  unfolded.forEach(d => { d.open = true; });
});
addEventListener("afterprint", () => unfolded.forEach(d => { d.open = false; }));
