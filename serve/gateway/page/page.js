// The page of the gateway: asks /v1/models what is served, then /search or /rerank, and /stats every two seconds.
"use strict";

const $ = (id) => document.getElementById(id);
const STATS_MS = 2000;
const POINTS = 60;
const state = { models: [], retriever: null, encoder: null, token: "", points: [], tab: "curl", asked: 0 };
try { state.token = sessionStorage.getItem("xt-token") || ""; } catch { /* storage is blocked: asked again next time */ }

async function ask(path, body) {
  const headers = { ...(body ? { "Content-Type": "application/json" } : {}) };
  if (state.token) headers.Authorization = `Bearer ${state.token}`;
  const answer = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const value = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const error = new Error(value.error?.message || `The server answered ${answer.status}.`);
    error.status = answer.status;
    throw error;
  }
  return value;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function percent(p) {
  if (p > 0 && p < 0.001) return "< 0.1 %";
  if (p < 1 && p > 0.999) return "> 99.9 %";
  return `${(p * 100).toFixed(1)} %`;
}

function row(text, share, value, meta, className) {
  const item = element("li", className);
  const hit = element("div", "hit");
  const words = element("span", "text", text);
  words.dir = "auto";
  const track = element("div", "track");
  track.setAttribute("aria-hidden", "true");
  const fill = element("span", "fill");
  fill.style.transform = "scaleX(0)";
  requestAnimationFrame(() => { fill.style.transform = `scaleX(${Math.max(0, Math.min(1, value))})`; });
  track.append(fill);
  hit.append(words, element("span", "share", share), track);
  if (meta) hit.append(element("span", "meta", meta));
  item.append(hit);
  return item;
}

function show(hits, none, note) {
  const list = $("results");
  list.replaceChildren();
  for (const hit of hits) {
    const text = hit.document ?? hit.id;
    const copies = (hit.copies || []).length > 1 ? ` and ${hit.copies.length - 1} more with this text` : "";
    const place = hit.id !== undefined && hit.document != null ? `${hit.id}${copies} · ` : "";
    const calibrated = hit.probability !== null && hit.probability !== undefined;
    const cosine = `cosine ${hit.score.toFixed(3)}`;
    if (calibrated) list.append(row(text, percent(hit.probability), hit.probability, place + cosine));
    else list.append(row(text, hit.score.toFixed(3), hit.score, `${place}cosine, not a probability`, "cosine"));
  }
  if (none !== null && none !== undefined) list.append(row("None of these", percent(none), none, "", "none"));
  $("note").textContent = note || "";
}

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

async function submit() {
  const query = $("query").value.trim();
  if (!query) { say("Write a query first.", true); $("query").focus(); return; }
  const turn = ++state.asked;
  const start = performance.now();
  $("go").setAttribute("aria-busy", "true");
  say("Asking…");
  try {
    let hits, none, answer;
    if (state.retriever) {
      answer = await ask("/search", { query, k: 10, model: state.retriever.id });
      [hits, none] = [answer.answers[0].results, answer.answers[0].none];
    } else {
      const documents = $("candidates").value.split("\n").map((t) => t.trim()).filter(Boolean);
      if (!documents.length) { say("Write some texts to rank, one a line.", true); $("candidates").focus(); return; }
      answer = await ask("/rerank", { query, documents, model: state.encoder.id });
      [hits, none] = [answer.results, answer.none];
    }
    if (turn !== state.asked) return;
    show(hits, none, answer.note);
    const whole = performance.now() - start;
    const count = hits.length === 1 ? "1 answer" : `${hits.length} answers`;
    say(`${count} in ${whole.toFixed(0)} ms, of which the server ${(answer.seconds * 1000).toFixed(0)} ms.`);
  } catch (error) {
    if (turn !== state.asked) return;
    show([], null, "");
    say(error.message, true);
    if (error.status === 401) needToken();
  } finally {
    if (turn === state.asked) $("go").removeAttribute("aria-busy");
  }
}

function needToken() {
  $("token-box").hidden = false;
  $("token").focus();
}

async function begin() {
  try {
    state.models = (await ask("/v1/models")).data;
    state.retriever = state.models.find((m) => m.kind === "retriever") || null;
    state.encoder = state.models.find((m) => m.kind === "encoder") || null;
    $("token-box").hidden = true;
    const list = state.models.map((m) => (m.dimensions ? `${m.id} (${m.kind}, ${m.dimensions} dimensions)` : `${m.id} (${m.kind})`));
    $("served").textContent = list.join(" · ") || "No model is served.";
    $("candidates-box").hidden = Boolean(state.retriever) || !state.encoder;
    $("go").textContent = state.retriever ? "Search" : "Rank";
    $("go").disabled = !state.retriever && !state.encoder;
    snippet();
  } catch (error) {
    $("served").textContent = error.status === 401 ? "This server asks for a token." : error.message;
    if (error.status === 401) needToken();
    else setTimeout(begin, 3000);
  }
}

function rounded(value, digits = 0) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });
}

function draw() {
  const top = Math.max(1, ...state.points);
  const step = 600 / (POINTS - 1);
  const first = POINTS - state.points.length;
  const xy = state.points.map((p, i) => `${((first + i) * step).toFixed(1)},${(70 - (66 * p) / top).toFixed(1)}`);
  if (!xy.length) return;
  const from = (first * step).toFixed(1);
  $("spark-line").setAttribute("d", `M${xy.join("L")}`);
  $("spark-area").setAttribute("d", `M${from},72L${xy.join("L")}L600,72Z`);
}

async function live() {
  if (!document.hidden) {
    try {
      const s = await ask("/stats");
      if (s.sentences_per_second !== null) state.points = [...state.points, s.sentences_per_second].slice(-POINTS);
      draw();
      const rows = [
        ["answered/s", rounded(s.sentences_per_second, s.sentences_per_second < 10 ? 1 : 0)],
        ["of it cached", rounded(s.cached_per_second, s.cached_per_second < 10 ? 1 : 0)],
        ["tokens/s", rounded(s.tokens_per_second)],
        ["median ms", rounded(s.p50_ms, 1)],
        ["waiting", rounded(s.waiting)],
        ["refused/s", rounded(s.refused_per_second, 1)],
        ["cache hits", s.cache_hit_rate === null ? "–" : `${(s.cache_hit_rate * 100).toFixed(0)} %`],
      ];
      $("numbers").replaceChildren(...rows.map(([name, value]) => {
        const box = element("div");
        box.append(element("dt", "", name), element("dd", "", value));
        return box;
      }));
      $("live-note").textContent = s.problem || `mean of the last ten seconds, peak ${rounded(Math.max(0, ...state.points))} sentences/s answered, cached ones included`;
    } catch (error) {
      $("live-note").textContent = error.status === 401 ? "with a token" : "no answer from the server";
    }
  }
  setTimeout(live, STATS_MS);
}

function pretty(body) {
  const lines = Object.entries(body).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value).replaceAll('","', '",\n         "')}`);
  return `{${lines.join(",\n       ")}}`;
}

function snippet() {
  const here = location.origin;
  const query = $("query").value.trim() || "Wo ist der Bahnhof?";
  const encoder = state.encoder?.id || "encoder";
  const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const text = JSON.stringify(query);
  const auth = state.token || !$("token-box").hidden;
  const body = state.retriever
    ? { query, k: 5 }
    : { query, documents: ["Where is the station?", "What time is it?"] };
  const path = state.retriever ? "/search" : "/rerank";
  const code = {
    curl: `curl ${here}${path} \\\n${auth ? "  -H \"Authorization: Bearer $XT_TOKEN\" \\\n" : ""}  -H 'Content-Type: application/json' \\\n  -d ${shell(pretty(body))}`,
    openai: `from openai import OpenAI\n\nclient = OpenAI(base_url="${here}/v1", api_key=${auth ? "TOKEN" : "\"none\""})\nanswer = client.embeddings.create(model="${encoder}", input=[${text}])\nvector = answer.data[0].embedding`,
    python: `from xt.serve import Client\n\n# HOST:PORT of the gRPC endpoint, as xt serve prints it\nclient = Client("127.0.0.1:8001", model="${state.retriever?.id || encoder}")\n` +
      (state.retriever ? `found = client.search([${text}], k=5)\nfound[0].hits, found[0].none` : `vectors = client.encode([${text}])  # numpy, (1, ${state.encoder?.dimensions || "dim"})`),
  };
  $("snippet").textContent = code[state.tab];
}

function choose(tab) {
  state.tab = tab.id.slice(4);
  for (const other of document.querySelectorAll("[role=tab]")) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
  }
  $("code").setAttribute("aria-labelledby", tab.id);
  snippet();
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("snippet"));
    $("copy").textContent = "Selected";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
}

function grow() {
  const box = $("query");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
  snippet();
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("query").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); submit(); }
});
$("query").addEventListener("input", grow);
$("use-token").addEventListener("click", () => {
  state.token = $("token").value.trim();
  try { sessionStorage.setItem("xt-token", state.token); } catch { /* kept for this page alone */ }
  say("");
  begin();
});
$("token").addEventListener("keydown", (event) => {
  if (event.key === "Enter") { event.preventDefault(); $("use-token").click(); }
});
$("copy").addEventListener("click", copy);
const tabs = [...document.querySelectorAll("[role=tab]")];
for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(i + step + tabs.length) % tabs.length];
    choose(next);
    next.focus();
  });
}
snippet();
begin();
live();
