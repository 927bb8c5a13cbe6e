"""The style sheet and the script of a report's page; both stand inside it, so that it loads nothing."""

LIGHT = {
    "paper": "#fbfaf8", "card": "#ffffff", "ink": "#1d2129", "muted": "#565d6b", "line": "#dcdad4", "wash": "#f1efea",
    "accent": "#0f5ea8", "second": "#a84a08", "third": "#5c5470",
}  # fmt: skip
DARK = {
    "paper": "#14161a", "card": "#1b1e24", "ink": "#e8e6e1", "muted": "#a5abb7", "line": "#363b45", "wash": "#22262d",
    "accent": "#74b4f5", "second": "#eea25f", "third": "#b9aed2",
}  # fmt: skip


def style() -> str:
    """The style sheet: light colours for screen and paper, dark ones for a screen that asks for them."""
    light, dark = (";".join(f"--{k}:{v}" for k, v in colours.items()) for colours in (LIGHT, DARK))
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{STYLE}"


STYLE = """
:root{color-scheme:light dark;
--serif:Charter,"Iowan Old Style","Palatino Linotype",Palatino,Georgia,"Noto Serif",serif;
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",Arial,sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%;scroll-padding-top:3.5rem}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.6 var(--sans)}
header,main,footer,nav>div{max-width:70rem;margin:0 auto;padding:0 clamp(1rem,4vw,2.5rem)}
header{padding-top:clamp(1.75rem,5vw,4rem)}
h1,h2,h3{font-family:var(--serif);line-height:1.2;font-weight:600;text-wrap:balance;overflow-wrap:anywhere}
h1{font-size:clamp(1.9rem,5vw,2.9rem);margin:.2rem 0 .9rem;letter-spacing:-.015em}
h2{font-size:clamp(1.5rem,3.4vw,2rem);margin:0 0 .6rem;letter-spacing:-.01em}
h3{font-size:1.15rem;margin:2.4rem 0 .5rem}
p{margin:.5rem 0;overflow-wrap:anywhere}
small,.small{font-size:.84rem}
.eyebrow{color:var(--muted);font-size:.86rem;margin:0}
.lead{font:400 clamp(1.12rem,2.3vw,1.4rem)/1.5 var(--serif);max-width:50rem;margin:0 0 .8rem}
.how{color:var(--muted);max-width:46rem;margin:0 0 1.2rem}
.how b,.lead b{color:var(--ink);font-weight:600}
.note{color:var(--muted);font-size:.88rem;max-width:46rem}
a{color:var(--accent);text-underline-offset:.15em}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:2px}
nav{position:sticky;top:0;z-index:5;background:var(--paper);border-bottom:1px solid var(--line);margin-top:2rem}
nav>div{display:flex;gap:1.4rem;overflow-x:auto;scrollbar-width:none}
nav a{padding:.7rem 0;text-decoration:none;white-space:nowrap;font-size:.9rem;color:var(--muted)}
nav a:hover{color:var(--ink);text-decoration:underline}
section{padding:clamp(2.2rem,5vw,3.6rem) 0 .6rem}
section+section{border-top:1px solid var(--line);margin-top:2.4rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(11.5rem,100%),1fr));gap:.8rem;margin:1.8rem 0 0;
padding:0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.9rem 1rem 1rem;margin:0}
.tile dt{font-size:.84rem;color:var(--muted);line-height:1.35}
.tile dd{margin:0}
.tile .big{font:600 clamp(1.8rem,4vw,2.15rem)/1.25 var(--serif);font-variant-numeric:lining-nums;
letter-spacing:-.02em}
.tile .sub{font-size:.84rem;color:var(--muted);line-height:1.4}
.scroll{overflow-x:auto;margin:1rem 0 1.4rem;border:1px solid var(--line);border-radius:.6rem;background:var(--card)}
.tall{max-height:36rem;overflow-y:auto}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.88rem;line-height:1.4}
caption{text-align:left;color:var(--muted);padding:.75rem .9rem .6rem}
caption span{position:sticky;left:.9rem;display:inline-block;max-width:min(46rem,calc(100vw - 4.4rem))}
th,td{padding:.38rem .9rem;text-align:left;border-top:1px solid var(--line);vertical-align:baseline;font-weight:400}
thead th{font-weight:600;background:var(--wash);vertical-align:bottom;white-space:nowrap}
thead th.g{text-align:center;border-left:1px solid var(--line)}
thead th.g:first-child{border-left:0}
.tall thead{position:sticky;top:0;z-index:2}
th[scope=row]{position:sticky;left:0;background:var(--card);z-index:1;min-width:6.5rem}
tbody tr:hover>*{background:var(--wash)}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums lining-nums}
.ci,.code{color:var(--muted);font-size:.92em}
td svg.dots{min-width:8rem;display:inline-block;vertical-align:middle}
th button{all:unset;cursor:pointer;font-weight:600}
th button:hover{text-decoration:underline}
th button:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
th button::after{content:" ↕";color:var(--muted);font-weight:400}
th[aria-sort=ascending] button::after{content:" ↑";color:var(--accent)}
th[aria-sort=descending] button::after{content:" ↓";color:var(--accent)}
.sort th,.sort td,.nowrap{white-space:nowrap}
tr.group th{font-weight:600;background:var(--card);padding-top:.9rem}
tr.group small{font-weight:400;color:var(--muted)}
tr.group th span{position:sticky;left:.9rem}
tr.group:hover>*{background:var(--card)}
figure{margin:0;min-width:0}
figcaption{font-size:.88rem;line-height:1.4;margin-bottom:.3rem}
figcaption span{color:var(--muted)}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(14.5rem,100%),1fr));gap:1.4rem 1.6rem;
margin:1rem 0 1.2rem}
.wide{grid-template-columns:repeat(auto-fit,minmax(min(19rem,100%),1fr))}.wide figure{max-width:32rem}
.panels figure{max-width:27rem;display:flex;flex-direction:column;justify-content:space-between}
.panels svg:not(.key){width:100%;height:auto;display:block}
svg{overflow:visible}
svg text{font-family:var(--sans);font-size:11px;fill:var(--muted);font-variant-numeric:tabular-nums}
svg .tag{fill:var(--ink)}
svg .tag,svg .hint{paint-order:stroke;stroke:var(--card);stroke-width:3px;stroke-linejoin:round}
.c-accent{color:var(--accent)}.c-second{color:var(--second)}.c-third{color:var(--third)}
.disc{fill:currentColor;stroke:var(--card);stroke-width:1}
.ring{fill:var(--card);stroke:currentColor;stroke-width:2}
.area{fill:currentColor;fill-opacity:.17}
.curve{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.faint{fill:none;stroke:currentColor;stroke-opacity:.35}
.span{stroke:currentColor;stroke-width:2;stroke-opacity:.5}
.whisk{stroke:currentColor;stroke-width:5;stroke-opacity:.22}
.grid{stroke:var(--line)}
.axis{stroke:var(--muted)}
.diag{stroke:var(--muted);stroke-dasharray:4 3}
.null{stroke:var(--ink);stroke-width:1.5}
.bar{fill:currentColor}
.point path{fill:currentColor;fill-opacity:.7;stroke:var(--card);stroke-width:.75}
.stem{stroke:currentColor;stroke-width:1.5;stroke-opacity:.45}
.point{cursor:default;outline:none}
.point:hover path,.point:focus-visible path{fill-opacity:1;stroke:var(--ink);stroke-width:1.5}
.band{fill:var(--ink);fill-opacity:.1}
.dash{stroke-dasharray:7 3}.dots2{stroke-dasharray:2 3}
svg .end{font-weight:600;fill:currentColor}
figure.map{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.6rem .6rem .2rem;
margin:.4rem 0 1.4rem}
figure.map svg{width:100%;height:auto;display:block}
figure.map .frame{stroke:none}
.say{font-size:.88rem;color:var(--muted);min-height:1.6em;padding:.2rem .4rem .4rem;margin:0}
.narrow-only{display:none}
.small-multiples{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.6rem,1fr));gap:1rem .9rem;
margin:.8rem 0 1.2rem}
.small-multiples figcaption{font-size:.84rem;line-height:1.3;margin:0 0 .2rem}
.small-multiples figcaption b{display:block;font-weight:600;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.small-multiples svg{width:100%;height:auto;display:block}
.groups{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:.6rem 2.4rem;
align-items:start;--name:8.5rem;--value:3.6rem}
.groups figcaption{font-weight:600}
.panels>div,.groups>figure{min-width:0}
.card h4 small{font-weight:400;color:var(--muted)}
h3.who small{font:400 .84rem var(--sans);color:var(--muted)}
code.hash{font-size:.8em}table code{white-space:nowrap}
.gap{stroke:currentColor;stroke-opacity:.4}
.frame{fill:var(--card);stroke:var(--line)}
.legend li{display:flex;align-items:baseline}.legend .key{flex:none;position:relative;top:2px}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.3rem;font-size:.88rem;margin:.8rem 0 .5rem;padding:0;list-style:none}
svg.key{width:14px;height:14px;vertical-align:-2px;margin-right:.35rem}
h4.who{font-size:1rem;font-weight:600;margin:1.4rem 0 0}
.chart{display:grid;grid-template-columns:1fr;gap:0 3rem;margin:.4rem 0 1.2rem}
@media (min-width:56rem){.chart.two{grid-template-columns:1fr 1fr}}
.r{display:grid;grid-template-columns:minmax(0,var(--name,10rem)) minmax(0,1fr) var(--value,6rem);gap:0 1rem;
font-size:.86rem;
line-height:22px;break-inside:avoid}
.r>:first-child{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.r i{font-style:normal;color:var(--muted);font-size:.92em}
.r .v{white-space:nowrap;font-variant-numeric:tabular-nums}
.r .v i{display:inline-block;min-width:3em;text-align:right}
.r:hover>:not(svg){color:var(--accent)}
svg.dots{width:100%;height:22px;display:block}
.bars .r{line-height:1.5rem;margin-bottom:.3rem}
.bars .r>:first-child{white-space:normal;line-height:1.3rem;align-self:center}
.bars{--name:21rem;--value:4rem;margin-bottom:1.4rem}.bars .r{align-items:center}
.short{--value:3.2rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));gap:.9rem;
margin:.8rem 0 1.2rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem .9rem;
break-inside:avoid;min-width:0}
.card h4{margin:0 0 .4rem;font-size:.88rem;font-weight:600;display:flex;justify-content:space-between;gap:1rem}
.card h4 span{font-weight:400;color:var(--muted)}
.card dl{margin:0;display:grid;grid-template-columns:3.9rem minmax(0,1fr);gap:.1rem .6rem;align-items:baseline}
.card dt{color:var(--muted);font-size:.84rem}
.card dd{margin:0;overflow-wrap:anywhere;unicode-bidi:plaintext;text-align:start}
.meter{height:5px;border-radius:3px;background:var(--wash);margin:.2rem 0 .6rem;overflow:hidden;
border:1px solid var(--line)}
.meter div{height:100%;background:currentColor}
.ok,.bad{font-weight:600;white-space:nowrap;color:var(--ink)}
.bad{background:var(--ink);color:var(--paper);border-radius:.3rem;padding:.05em .45em}
dl.facts{display:grid;grid-template-columns:minmax(6.5rem,auto) minmax(0,1fr);gap:.35rem 1.4rem;font-size:.92rem;
margin:1rem 0}
dl.facts dt{color:var(--muted)}
dl.facts dd{margin:0;overflow-wrap:anywhere}
code{font-family:var(--mono);font-size:.9em;overflow-wrap:anywhere}
pre{background:var(--wash);border:1px solid var(--line);border-radius:.6rem;padding:.7rem .9rem;margin:.4rem 0 1rem;
white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.45;font-size:.9rem}
ul.notes{padding-left:1.2rem;max-width:46rem}
ul.notes li{margin:.3rem 0}
details{margin:.6rem 0}
summary{cursor:pointer;color:var(--accent);font-size:.92rem;padding:.3rem 0;width:fit-content}
footer{color:var(--muted);font-size:.86rem;padding-top:1.6rem;padding-bottom:3rem;margin-top:2.4rem;
border-top:1px solid var(--line)}
@media (max-width:40rem){.wide-only{display:none}.narrow-only{display:block}
.small-multiples{grid-template-columns:repeat(auto-fill,minmax(6.4rem,1fr));gap:.9rem .7rem}
figure.map{padding:.4rem .2rem .1rem}
.r{--name:6.6rem;gap:0 .7rem}.r>:first-child i{display:none}
.bars .r{--name:9rem;--value:3.6rem}.sort th[scope=row]{white-space:normal}
th,td{padding:.38rem .6rem}caption{padding:.75rem .6rem .6rem}caption span,tr.group th span{left:.6rem}
dl.facts{grid-template-columns:1fr;gap:0}
dl.facts dd{margin-bottom:.6rem}.tiles{grid-template-columns:1fr 1fr}.chart{--value:5.4rem}
.strip{display:flex;overflow-x:auto;scroll-snap-type:x proximity;gap:1rem;padding:.2rem .4rem .3rem 0}
.strip figure{flex:0 0 84%;scroll-snap-align:start}
.chart.short{--value:2.6rem}.tile:first-child{grid-column:1/-1}.tile{padding:.7rem .8rem .8rem}}
@media print{.screen{display:none}.chart.two{grid-template-columns:1fr 1fr;gap:0 1.5rem}.r{--name:6.2rem;gap:0 .6rem}
.r>:first-child i{display:none}.chart{--value:5.2rem}.strip{grid-template-columns:repeat(4,1fr)}
body{font-size:10pt;background:#fff}nav{display:none}.tall{max-height:none;overflow:visible}
.scroll{overflow:visible}
.tall thead,th[scope=row]{position:static}th button::after{content:""}table{font-size:7.5pt}
th,td{padding:.15rem .4rem}
figure,.tile,.panels figure{break-inside:avoid}h2,h3,h4{break-after:avoid}
.tiles{grid-template-columns:repeat(5,1fr);gap:.5rem}
thead th.g{white-space:normal}.sort{font-size:6pt}.sort th,.sort td{padding:.1rem .22rem}summary{color:var(--muted)}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""

SCRIPT = """
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
"""
