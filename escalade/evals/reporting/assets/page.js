"use strict";
// Sorting of all tables, and the table of questions: columns of numbers, of which a window of rows is shown.
(() => {
  const byId = (id) => document.getElementById(id);
  const node = (name, words, kind) => {
    const made = document.createElement(name);
    if (words !== undefined) made.textContent = words;
    if (kind) made.className = kind;
    return made;
  };
  const mark = (heads, head, up) => {
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  };

  for (const table of document.querySelectorAll("table.grid:not(.questions)")) {
    const heads = [...table.querySelectorAll("thead th")];
    const key = (row, at) => {
      const cell = row.cells[at];
      if (cell.dataset.v === undefined) return cell.textContent;
      return cell.dataset.v === "" ? NaN : Number(cell.dataset.v);
    };
    heads.forEach((head, at) => head.querySelector("button")?.addEventListener("click", () => {
      const number = head.classList.contains("n");
      const first = !head.hasAttribute("aria-sort");
      const up = first ? !number : head.getAttribute("aria-sort") === "descending";
      const keyed = [...table.tBodies[0].rows].map((row) => [key(row, at), row]);
      keyed.sort(([a], [b]) => {
        if (a !== a || b !== b) return (a !== a) - (b !== b);
        return (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
      });
      table.tBodies[0].append(...keyed.map(([, row]) => row));
      mark(heads, head, up);
    }));
  }

  const source = byId("data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const WINDOW = 50, n = data.keys.length, rungs = data.rungs.length, OK = data.statuses.indexOf("ok");
  const quality = data.quality.map((column) => typeof column === "string"
    ? Float32Array.from(column, (sign) => sign === "?" ? NaN : Number(sign))
    : Float32Array.from(column, (value) => value === null ? NaN : value / 1000));
  const failed = (rung, i) => data.status !== null && Number(data.status[rung][i]) !== OK;
  const why = ([words, numbers]) => {
    const each = numbers.split(" ");
    let at = 0;
    return data.words[words].replace(/\0/g, () => each[at++]);
  };

  // What a policy came to on each question, its cost in dollars per 1,000 of them; made when it is first looked at.
  const made = new Map();
  const played = (number) => {
    if (made.has(number)) return made.get(number);
    const policy = data.policies[number];
    const is = { good: new Float32Array(n), cost: new Float64Array(n), calls: new Uint8Array(n), bad: new Uint8Array(n) };
    for (let i = 0; i < n; i++) {
      if (policy.code === null) {
        is.good[i] = policy.quality[i] === null ? NaN : policy.quality[i] / 1000;
        is.cost[i] = NaN;
        continue;
      }
      const [tried, chosen] = policy.courses[policy.code[i]];
      is.bad[i] = chosen < 0 || failed(chosen, i) ? 1 : 0;
      is.good[i] = is.bad[i] ? 0 : quality[chosen][i];
      is.calls[i] = tried.length;
      for (const rung of tried) is.cost[i] += data.cost[rung][i] < 0 ? NaN : data.cost[rung][i] / 1e6;
    }
    made.set(number, is);
    return is;
  };

  const haystack = data.keys.map((key, i) => (key + " " + (data.texts ? data.texts[i] : "")).toLowerCase());
  // Reasons are searched once per course, not once per question.
  const lowered = new Map();
  const reasons = (policy, needle) => {
    if (!lowered.has(policy)) lowered.set(policy, policy.courses.map((course) => course[2].map((one) => why(one).toLowerCase())));
    return lowered.get(policy).map((whys) => whys.some((one) => one.includes(needle)));
  };

  const form = document.querySelector(".tools"), table = byId("q-table"), body = table.tBodies[0];
  const search = byId("q-search"), policy = byId("q-policy"), against = byId("q-against"), show = byId("q-show"), kind = byId("q-kind");
  const heads = [...table.querySelectorAll("thead th")];
  let shown = [], start = 0, sorted = "order", up = true;
  const opened = new Set();

  data.policies.forEach(({ name }, number) => {
    for (const select of [policy, against]) select.add(new Option(name, number));
  });
  policy.value = data.first;
  against.value = data.against;
  if (data.categories) {
    kind.add(new Option("all", ""));
    data.kinds.forEach((name, number) => kind.add(new Option(name, number)));
    byId("q-kinds").hidden = false;
  } else for (const cell of table.querySelectorAll(".kind")) cell.hidden = true;

  const kept = (one, other) => ({
    differs: (i) => one.good[i] !== other.good[i],
    won: (i) => one.good[i] > other.good[i],
    lost: (i) => one.good[i] < other.good[i],
    wrong: (i) => one.good[i] < 0.5 && other.good[i] < 0.5,
    climbed: (i) => one.calls[i] > 1,
    failed: (i) => one.bad[i] === 1,
  })[show.value] ?? (() => true);

  const column = (one, other) => ({
    kind: (i) => data.categories ? data.categories[i] : 0,
    quality: (i) => one.good[i],
    calls: (i) => one.calls[i],
    cost: (i) => one.cost[i],
    other: (i) => other.good[i],
    saved: (i) => other.cost[i] - one.cost[i],
  })[sorted] ?? ((i) => i);

  const filter = () => {
    const one = played(Number(policy.value)), other = played(Number(against.value));
    const its = data.policies[Number(policy.value)];
    const needle = search.value.trim().toLowerCase(), keep = kept(one, other), only = kind.value;
    const told = needle ? reasons(its, needle) : null;
    const found = [];
    const coded = needle && its.code !== null && told.includes(true);
    for (let i = 0; i < n; i++) {
      if (only !== "" && data.categories && data.categories[i] !== Number(only)) continue;
      if (needle && !haystack[i].includes(needle) && !(coded && told[its.code[i]])) continue;
      if (keep(i)) found.push(i);
    }
    const by = column(one, other);
    if (sorted !== "order" || !up) {
      const keys = Float64Array.from({ length: n }, (_, i) => by(i));
      found.sort((a, b) => {
        const x = keys[a], y = keys[b];
        if (x !== x || y !== y) return (x !== x) - (y !== y) || a - b;
        return (up ? x - y : y - x) || a - b;
      });
    }
    shown = found;
    start = 0;
    draw();
  };

  const share = (value) => value !== value ? "?" : value === 1 ? "\u2713" : value === 0 ? "\u2717" : (100 * value).toFixed(0) + "%";
  const money = (value) => value !== value ? "?" : value === 0 ? "0" : (value < 0 ? "-" : "") + Math.abs(value).toFixed(Math.min(9, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))));
  const judged = (value) => {
    const cell = node("td", undefined, "n");
    const sign = node("span", share(value), value >= 0.5 ? "right" : "wrong");
    sign.setAttribute("role", "img");
    sign.setAttribute("aria-label", value === 1 ? "right" : value === 0 ? "wrong" : share(value));
    cell.append(sign);
    return cell;
  };
  const path = (its, i) => {
    const cell = node("td", undefined, "path");
    if (its.code === null) {
      cell.textContent = "an expected value, over several rungs";
      return cell;
    }
    const [tried, chosen] = its.courses[its.code[i]];
    if (!tried.length) cell.textContent = "none";
    for (const rung of tried) cell.append(node("span", data.rungs[rung], rung === chosen ? "step chosen" : "step"));
    return cell;
  };

  const row = (i) => {
    const its = data.policies[Number(policy.value)], one = played(Number(policy.value)), other = played(Number(against.value));
    const line = node("tr"), name = node("th"), open = node("button", undefined, "open");
    name.scope = "row";
    open.type = "button";
    open.setAttribute("aria-expanded", String(opened.has(i)));
    open.append(node("span", data.keys[i], "key"));
    if (data.texts) open.append(" ", node("span", data.texts[i]));
    open.addEventListener("click", () => {
      if (!opened.delete(i)) opened.add(i);
      draw(i);
    });
    name.append(open);
    const kindCell = node("td", data.categories ? data.kinds[data.categories[i]] : "", "kind");
    kindCell.hidden = !data.categories;
    line.append(name, kindCell, judged(one.good[i]), path(its, i), node("td", money(one.cost[i]), "n"),
      judged(other.good[i]), node("td", money(other.cost[i] - one.cost[i]), "n"));
    line.dataset.i = i;
    return line;
  };

  const detail = (i) => {
    const line = node("tr", undefined, "more"), cell = node("td"), inner = node("table"), top = node("tr");
    cell.colSpan = heads.length;
    for (const name of ["policy", "quality", "path", "$/1k", "why"]) {
      const head = node("th", name);
      head.scope = "col";
      top.append(head);
    }
    const rows = data.policies.map((its, number) => {
      const is = played(number), one = node("tr"), name = node("th", its.name);
      name.scope = "row";
      const told = its.code === null ? "" : its.courses[its.code[i]][2].map(why).filter((told, at, all) => told !== all[at - 1]).join("; ");
      one.append(name, judged(is.good[i]), path(its, i), node("td", money(is.cost[i])), node("td", told));
      return one;
    });
    inner.append(top, ...rows);
    cell.append(inner);
    line.append(cell);
    return line;
  };

  const draw = (focus) => {
    const seen = shown.slice(start, start + WINDOW);
    body.replaceChildren(...seen.flatMap((i) => opened.has(i) ? [row(i), detail(i)] : [row(i)]));
    if (focus !== undefined) body.querySelector(`tr[data-i="${focus}"] .open`)?.focus();
    const one = played(Number(policy.value)), other = played(Number(against.value));
    const mean = (is) => shown.length ? (100 * shown.reduce((sum, i) => sum + is.good[i], 0) / shown.length).toFixed(1) + "%" : "?";
    byId("q-count").textContent = `${shown.length.toLocaleString("en")} of ${n.toLocaleString("en")} questions; quality there: ` +
      `${mean(one)} by ${data.policies[Number(policy.value)].name}, ${mean(other)} by ${data.policies[Number(against.value)].name}`;
    byId("q-at").textContent = shown.length ? `${(start + 1).toLocaleString("en")} to ${(start + seen.length).toLocaleString("en")}` : "none";
    byId("q-before").disabled = start === 0;
    byId("q-next").disabled = start + WINDOW >= shown.length;
  };

  heads.forEach((head) => head.querySelector("button").addEventListener("click", (event) => {
    const by = event.currentTarget.dataset.sort;
    up = sorted === by ? !up : by === "order" || by === "kind";
    sorted = by;
    mark(heads, head, up);
    filter();
  }));
  byId("q-before").addEventListener("click", () => { start = Math.max(0, start - WINDOW); draw(); });
  byId("q-next").addEventListener("click", () => { start += WINDOW; draw(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", filter);
  for (const select of [policy, against, show, kind]) select.addEventListener("change", filter);
  form.hidden = table.hidden = document.querySelector(".pager").hidden = false;
  filter();
})();
