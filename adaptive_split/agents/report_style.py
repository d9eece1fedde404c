"""The style of the report, light and dark; nothing is fetched from anywhere."""

STYLE = """
:root { color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --ink: #1b1b19; --soft: #5c5b57; --line: #e4e3df;
  --c0: #2a6fd6; --c1: #1a9c6c; --c2: #c98a00; --c3: #7a52c7; --c4: #d1559a; --c5: #dd5a28;
  --c6: #6b6a66; --c7: #0f8aa3;
  --k0: #b3261e; --k1: #e2725b; --k2: #dba63a; --k3: #7fb069; --k4: #4c8fd6; --k5: #9a8fb8;
  --b0: #9ec5f4; --b1: #5b9bea; --b2: #2a6fd6; --b3: #123f86; --bl: #8d8b84; --area: #d9e6f7; }
@media (prefers-color-scheme: dark) { :root {
  --page: #161615; --card: #1f1f1d; --ink: #f1f0ec; --soft: #aaa8a1; --line: #34332f;
  --c0: #5b9bf0; --c1: #35bd8a; --c2: #e0a92b; --c3: #a488ea; --c4: #e583b8; --c5: #f0824f;
  --c6: #a3a19a; --c7: #45b5cc;
  --k0: #e0584f; --k1: #e88f7c; --k2: #dcae52; --k3: #8cbd78; --k4: #5f9fe6; --k5: #ada2cc;
  --b0: #1f4a8a; --b1: #3b78d0; --b2: #6ea8f5; --b3: #c3dcfd; --bl: #8d8b84; --area: #24364f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 32px 30px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 44px 0 6px; }
h3 { font-size: 15px; margin: 18px 0 4px; } p { margin: 6px 0 12px; max-width: 76ch; }
.soft, figcaption, small { color: var(--soft); } figcaption { font-size: 13px; margin-top: 6px; }
figure h3 { margin-top: 0; }
ul { margin: 4px 0 14px; padding-left: 22px; }
figure { margin: 14px 0; padding: 14px 16px; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; overflow-x: auto; }
.two, .panels { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
.two figure { margin: 0; } @media (max-width: 760px) { main { padding: 20px 14px; }
  .two, .panels { grid-template-columns: 1fr; } }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.tile { flex: 1 1 180px; padding: 12px 16px; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; }
.tile b { display: block; font-size: 24px; font-weight: 600; } .tile span { color: var(--soft);
  font-size: 13px; }
svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 5px 7px; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left;
  white-space: normal; }
tr.strong td:first-child { font-weight: 700; } .scroll { overflow-x: auto; margin: 12px 0; }
.badge { display: inline-block; padding: 0 7px; border: 1px solid var(--c2); border-radius: 9px;
  color: var(--c2); font-size: 12px; }
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  fill: var(--ink); }
text.tick, text.axis, text.note { fill: var(--soft); } text.tick { font-size: 11px; }
text.panel { fill: var(--ink); font-weight: 600; } text.strong { font-weight: 700; }
text.value { font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); stroke-width: 1; } .zero { stroke: var(--soft); stroke-width: 1.5; }
.deadline { stroke: var(--k0); stroke-width: 1.5; stroke-dasharray: 5 4; }
.whisker { stroke-width: 2.5; stroke-linecap: round; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
path.line.c0 { stroke-width: 3; } path.line.c6 { stroke-dasharray: 6 4; }
circle.dot { stroke: var(--card); stroke-width: 2; } circle.c6 { fill: var(--card);
  stroke: var(--c6); }
path.line.c7 { stroke-width: 1; } path.line.dotted { stroke-dasharray: 2 4; }
line.dotted { stroke-dasharray: 1 5; } circle.c4.dotted { fill: var(--card); stroke: var(--c4); }
.area { fill: var(--area); } .edge { fill: none; stroke: var(--c0); stroke-width: 1.25; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 8px; font-size: 13px; }
.legend span { display: inline-flex; align-items: center; gap: 6px; }
.swatch { width: 12px; height: 12px; border-radius: 3px; display: inline-block; }
.swatch.line { height: 3px; width: 18px; } .swatch.c6 { height: 0; background: none;
  border-top: 3px dashed var(--c6); } .swatch.dotted { height: 0; background: none;
  border-top: 3px dotted var(--c6); } .swatch.c4.dotted { border-color: var(--c4); }
td small { display: block; font-size: 11px; font-weight: 400; } td b { font-weight: 700; }
.panels > div { min-width: 0; }
path.s-fixed { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
path.s-adaptive { stroke: var(--ink); stroke-width: 3; }
.swatch.s-fixed { height: 0; background: none; border-top: 2px dashed var(--soft); }
.swatch.s-adaptive { background: var(--ink); }
.facts td { text-align: left; white-space: normal; vertical-align: top; }
.facts td:first-child { white-space: nowrap; }
.miss { fill: var(--k0); background: var(--k0); } .fell { fill: var(--k2);
  background: var(--k2); }
.b-local { fill: var(--bl); background: var(--bl); }
""" + "\n".join(
    [
        f"line.c{i}, path.c{i} {{ stroke: var(--c{i}); }} circle.c{i} {{ fill: var(--c{i}); }} "
        f".swatch.c{i}:not(.dotted) {{ background: var(--c{i}); }}"
        for i in range(8)
        if i != 6
    ]
    + ["line.c6, path.c6 { stroke: var(--c6); }"]
    + [f".k{i} {{ fill: var(--k{i}); background: var(--k{i}); }}" for i in range(6)]
    + [
        f"path.s{i} {{ stroke: var(--{c}); }} .swatch.s{i} {{ background: var(--{c}); }}"
        for i, c in enumerate(("c0", "c1", "c2", "c4", "c3", "c5"))
    ]
    + [f".b{i} {{ fill: var(--b{i}); background: var(--b{i}); }}" for i in range(4)]
)
