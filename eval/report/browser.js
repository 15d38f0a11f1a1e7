"use strict";
// Shows the page's episodes, a few at a time. Everything they hold is put into the page as text, never as markup.
(() => {
  const PAGE = 10;
  const LEAST = 4; // shades of tokens: of 0 to 1 nat, and so on
  const END = "\u23ce";
  const { head, rows } = JSON.parse(document.getElementById("episodes").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const pages = document.getElementById("pages");
  let found = rows;
  let start = 0;

  const add = (parent, tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const runName = (name) => head.labels[name] || name;
  const number = (value) => (value === null || value === undefined ? "?" : value.toFixed(2));

  const FILTERS = [
    ["run", "Run", (row) => row.r, runName],
    ["partner", "Partner", (row) => row.p, String],
    ["seat", "Agent's seat", (row) => row.s, (seat) => seat || "every seat"],
    ["decoding", "Played", (row) => row.d, String],
    ["outcome", "Outcome", (row) => (row.ok ? "solved" : "not solved"), String],
  ];
  const chosen = {};
  for (const [name, title, value, shown] of FILTERS) {
    const label = add(form, "label", "", title);
    const select = add(label, "select");
    select.name = name;
    add(select, "option", "", "all").value = "all";
    [...new Set(rows.map(value))].forEach((item, index) => {
      const option = add(select, "option", "", shown(item));
      option.value = "is" + index;
      chosen[name + "/is" + index] = item;
    });
    select.addEventListener("change", filter);
  }
  const words = add(add(form, "label", "", "Words"), "input");
  words.type = "search";
  words.name = "words";
  words.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());

  function filter() {
    const wanted = words.value.toLowerCase();
    const tests = FILTERS.map(([name, , value]) => [value, form.elements[name].value, name])
      .filter(([, choice]) => choice !== "all")
      .map(([value, choice, name]) => (row) => value(row) === chosen[name + "/" + choice]);
    if (wanted) {
      const has = (text) => String(text).toLowerCase().includes(wanted);
      tests.push((row) => has(row.q) || row.t.some((turn) => has(turn[1])));
    }
    found = rows.filter((row) => tests.every((test) => test(row)));
    start = 0;
    show();
  }

  function show() {
    list.replaceChildren();
    for (const row of found.slice(start, start + PAGE)) episode(row);
    const end = Math.min(start + PAGE, found.length);
    const count = found.length.toLocaleString("en");
    document.getElementById("count").textContent = found.length
      ? `Episodes ${start + 1} to ${end} of ${count}`
      : "No episode is like that.";
    pages.replaceChildren();
    step("Back", start - PAGE, start <= 0);
    step("Next", start + PAGE, end >= found.length);
  }

  function step(text, to, off) {
    const button = add(pages, "button", "", text);
    button.type = "button";
    button.disabled = off;
    button.addEventListener("click", () => {
      start = to;
      show();
      document.getElementById("count").scrollIntoView();
    });
  }

  function episode(row) {
    const card = add(list, "article");
    add(card, "h3", "", row.q);
    const facts = add(card, "p", "facts");
    add(facts, "span", row.ok ? "solved" : "unsolved", row.ok ? "solved" : "not solved");
    const step = row.step === undefined ? "" : ` step ${row.step}`;
    facts.append(` · ${runName(row.r)} · partner ${row.p} · ${row.d}${step}`);
    const left = row.s || head.seats[0];
    const others = head.seats.filter((seat) => seat !== left);
    const talk = add(card, "div", "talk");
    add(talk, "div", "who", seatLine(row, left, row.s ? "agent" : ""));
    add(talk, "div", "who", others.map((seat) => seatLine(row, seat, row.s ? row.p : "")).join(" · "));
    for (const [seat, text, paid, logprobs, widths] of row.t) {
      const turn = add(talk, "div", "turn " + (seat === left ? "left" : "right"));
      if (others.length > 1 && seat !== left) add(turn, "div", "paid", seat);
      if (text === "") add(turn, "p", "words nothing", "(said nothing)");
      else if (widths) tokens(turn, text, logprobs, widths);
      else add(turn, "p", "words", text);
      if (paid && paid.some((part) => part)) add(turn, "div", "paid", rewards(paid));
    }
  }

  // Each token in a shade of its own: the less likely it was, the darker. Those without a character count with the next.
  function tokens(turn, text, logprobs, widths) {
    const words = add(turn, "p", "words");
    const facts = add(turn, "div", "paid"); // where there is no pointer to rest on a token
    words.addEventListener("click", (event) => (facts.textContent = event.target.title));
    const characters = Array.from(text);
    let at = 0;
    let sum = 0;
    widths.forEach((width, index) => {
      sum += logprobs[index];
      const last = index === widths.length - 1;
      if (!width && !last) return;
      const shade = Math.min(LEAST, Math.floor(-sum));
      const said = width ? characters.slice(at, at + width).join("") : END;
      const token = add(words, "span", `token t${Math.max(shade, 0)}${width ? "" : " end"}`, said);
      token.title = `${width ? "" : "end of the reply: "}log-probability ${sum.toFixed(2)}, probability ${probability(sum)}`;
      at += width;
      sum = 0;
    });
    words.append(characters.slice(at).join(""));
  }

  function probability(logprob) {
    const value = Math.exp(logprob);
    return value < 0.001 ? "below 0.001" : value.toFixed(3);
  }

  function seatLine(row, seat, who) {
    const facts = [];
    if (seat in row.ret) facts.push(`return ${number(row.ret[seat])}`);
    if (seat in row.eff) facts.push(`effort ${row.eff[seat]}`);
    return `${seat}${who ? ` (${who})` : ""}${facts.length ? ": " + facts.join(", ") : ""}`;
  }

  function rewards([team, own, cost]) {
    const parts = [["team", team], ["own", own], ["cost", cost ? -cost : 0]];
    return parts.filter(([, value]) => value).map(([name, value]) => `${name} ${value > 0 ? "+" : ""}${number(value)}`).join(", ");
  }

  // Tables and pictures that go on beyond their frame say so, as a phone shows no bar.
  function markWide() {
    for (const frame of document.querySelectorAll(".scroll, .wide")) {
      const hidden = frame.scrollWidth - frame.clientWidth;
      frame.classList.toggle("wider", hidden > 1);
      frame.classList.toggle("end", hidden - frame.scrollLeft <= 1);
      frame.parentElement.querySelector(".more").hidden = hidden <= 1;
      frame.onscroll = () => frame.classList.toggle("end", hidden - frame.scrollLeft <= 1);
    }
  }

  show();
  markWide();
  addEventListener("resize", markWide);
  for (const folded of document.querySelectorAll("details")) folded.addEventListener("toggle", markWide);
  document.documentElement.dataset.ready = Math.round(performance.now()); // ms since the page was asked for
})();
