// What the page does beyond showing: sort, filter, group and highlight, and draw the alignments that are chosen.
// All numbers, charts and texts are in the page already; without scripts it is the same report, but for the alignments.
"use strict";
(() => {
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const one = (query) => document.querySelector(query);
  const data = JSON.parse(one("#data").textContent);
  const marks = all("[data-v]");
  const pinned = new Set();
  const table = one("table.main");
  const rows = table ? all("tbody tr", table) : [];
  let sorted = null; // [column, 1 or -1]

  const highlight = (variant) => {
    const shown = variant === null ? pinned : new Set([...pinned, variant]);
    for (const mark of marks) mark.classList.toggle("on", shown.has(mark.dataset.v));
    document.body.classList.toggle("lit", shown.size > 0);
  };

  const visible = () => {
    const words = one("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const labels = all("#bar select[data-axis]").filter((each) => each.value);
    return new Set(data.rows.filter((row) => {
      const text = row.text.toLowerCase();
      return words.every((word) => text.includes(word)) && labels.every((each) => row.point[each.dataset.axis] === each.value);
    }).map((row) => String(row.number)));
  };

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.k === undefined ? cell.textContent : cell.dataset.k === "" ? null : Number(cell.dataset.k);
  };

  const compare = (a, b) => {
    if (!sorted) return a.dataset.r - b.dataset.r;
    const [x, y] = [key(a, sorted[0]), key(b, sorted[0])];
    if (x === null || y === null) return (x === null) - (y === null); // what is missing is last in both directions
    return sorted[1] * (typeof x === "string" ? x.localeCompare(y) : x - y);
  };

  const arrange = () => {
    const by = one("#by") ? one("#by").value.split("\n").filter(Boolean) : [];
    all("tr.group", table).forEach((row) => row.remove());
    const name = (row) => by.map((axis) => `${axis} ${data.rows[row.dataset.r - 1].point[axis]}`).join(", ");
    const groups = new Map();
    for (const row of [...rows].sort((a, b) => a.dataset.r - b.dataset.r)) {
      groups.set(name(row), [...(groups.get(name(row)) || []), row]);
    }
    for (const [title, members] of groups) {
      if (by.length && members.some((row) => !row.classList.contains("out"))) {
        const head = table.tBodies[0].insertRow();
        head.className = "group";
        const cell = head.insertCell();
        cell.colSpan = table.tHead.rows[0].cells.length;
        cell.textContent = title;
      }
      table.tBodies[0].append(...members.sort(compare));
    }
    all(".facets[data-by]").forEach((each) => {
      each.hidden = one("#by") !== null && each.dataset.by !== one("#by").value;
    });
  };

  const refresh = () => {
    const shown = visible();
    const best = Number(one("#best").value);
    for (const mark of marks) {
      mark.classList.toggle("lead", Number(mark.dataset.v) <= best);
    }
    all("[data-r]").forEach((each) => each.classList.toggle("out", !shown.has(each.dataset.r)));
    const variants = new Set(data.rows.filter((row) => shown.has(String(row.number))).map((row) => String(row.variant)));
    all("#legend [data-v]").forEach((chip) => chip.classList.toggle("out", !variants.has(chip.dataset.v)));
    one("#count").textContent = `${shown.size} of ${data.rows.length}`;
    if (table) arrange();
    drawMaps(shown);
  };

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  const drawMap = (map, head, title) => {
    const figure = document.createElement("figure");
    const caption = figure.appendChild(document.createElement("figcaption"));
    const name = caption.appendChild(document.createElement("b"));
    name.textContent = title;
    caption.append(document.createElement("br"), map.text);
    caption.dir = "auto";
    const grid = figure.appendChild(document.createElement("div")).appendChild(document.createElement("table"));
    grid.parentNode.className = "scroll";
    grid.className = "map";
    const top = grid.createTHead().insertRow();
    top.append(document.createElement("th"), ...map.source.map((token) => {
      const cell = document.createElement("th");
      cell.textContent = token;
      return cell;
    }));
    const weights = bytes(map.weights[Math.min(head, map.weights.length - 1)]);
    const body = grid.createTBody();
    map.tokens.forEach((token, place) => {
      const row = body.insertRow();
      row.appendChild(document.createElement("th")).textContent = token;
      map.source.forEach((_, column) => {
        const weight = weights[place * map.source.length + column];
        const cell = row.insertCell();
        cell.className = weight === 255 ? "nan" : "";
        cell.style.setProperty("--w", (weight / 2.54).toFixed(1));
        cell.title = weight === 255 ? "NaN" : (weight / 254).toFixed(2);
      });
    });
    return figure;
  };

  const drawMaps = (shown) => {
    const place = one("#maps");
    if (!place) return;
    const [sentence, seed, head] = ["#sentence", "#seed", "#head"].map((id) => one(id) ? one(id).value : "0");
    const wanted = data.rows.filter((row) => shown.has(String(row.number)))
      .filter((row) => pinned.size ? pinned.has(String(row.variant)) : row.variant <= Number(one("#best").value));
    const chosen = wanted.flatMap((row) => {
      const maps = data.maps.filter((map) => map.row === row.number && map.sentence === Number(sentence));
      const found = seed === "" ? maps.slice(0, 1) : seed === "all" ? maps : maps.filter((map) => String(map.seed) === seed);
      return found.map((map) => drawMap(map, Number(head), `${row.label}, seed ${map.seed}`));
    });
    place.replaceChildren(...chosen);
    one("#reference").textContent = data.sentences[sentence].references.join(" / ");
    one("#nomaps").hidden = chosen.length > 0;
  };

  for (const mark of all("svg [data-v]")) { // the page's own hint is at once there
    const title = mark.querySelector(":scope>title");
    mark.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  tip.hidden = true;
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest("[data-v]");
    highlight(mark ? mark.dataset.v : null);
    const label = mark && mark.closest("svg") && mark.getAttribute("aria-label");
    tip.hidden = !label;
    if (label) tip.textContent = label;
  });
  document.addEventListener("pointermove", (event) => {
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 16}px`;
  });
  document.addEventListener("click", (event) => {
    const sorter = event.target.closest("th[aria-sort] button");
    if (sorter) {
      const head = sorter.parentNode;
      const before = head.getAttribute("aria-sort");
      all("th[aria-sort]", table).forEach((each) => each.setAttribute("aria-sort", "none"));
      const direction = before === "none" ? head.dataset.first : before === "ascending" ? "descending" : "ascending";
      head.setAttribute("aria-sort", direction);
      sorted = [head.cellIndex, direction === "ascending" ? 1 : -1];
      arrange();
      return;
    }
    const mark = event.target.closest("#legend [data-v], svg [data-v]");
    if (mark) {
      if (!pinned.delete(mark.dataset.v)) pinned.add(mark.dataset.v);
      all("#legend [data-v]").forEach((chip) => chip.setAttribute("aria-pressed", pinned.has(chip.dataset.v)));
      highlight(null);
      drawMaps(visible());
    }
  });
  one("#reset").addEventListener("click", () => {
    pinned.clear();
    sorted = null;
    all("#bar select, #bar input").forEach((each) => {
      if (each.tagName === "SELECT") each.selectedIndex = all("option", each).findIndex((option) => option.defaultSelected);
      else each.value = "";
      if (each.selectedIndex < 0) each.selectedIndex = each.id === "best" ? each.length - 1 : 0;
    });
    all("th[aria-sort]").forEach((each) => each.setAttribute("aria-sort", "none"));
    all("#legend [data-v]").forEach((chip) => chip.setAttribute("aria-pressed", "false"));
    highlight(null);
    refresh();
  });
  all("#bar select, #bar input, .picks select").forEach((each) => each.addEventListener("input", refresh));
  const openTarget = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const folded = target && target.closest("details");
    if (folded) {
      folded.open = true;
      target.scrollIntoView({ block: "center" });
    }
  };
  addEventListener("hashchange", openTarget);
  const best = one("#best");
  if (![...best.options].some((option) => option.defaultSelected)) best.selectedIndex = best.length - 1; // all
  document.body.classList.add("live");
  refresh();
  openTarget();
})();
