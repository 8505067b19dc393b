"""The colors and CSS of the page and its figures: light, dark and in print.

Series colors are those of Okabe & Ito (2008), darkened in the light palette, so that their contrast to the background
is at least 3 : 1; that of text is at least 4.5 : 1 (a test measures both). The baseline is grey.
"""

LIGHT = {
    "paper": "#ffffff",
    "raised": "#f5f6f8",
    "ink": "#1b1f24",
    "mute": "#57606a",
    "rule": "#d5dae0",
    "grid": "#e7eaee",
    "link": "#0a58b0",
    "bad": "#b3261e",
    "heat": "#0b4a8f",
    "series": ("#4a525c", "#0072b2", "#c65100", "#008060", "#b0478a", "#8a6d00", "#5a4fcf", "#b3261e"),
}
DARK = {
    "paper": "#14171b",
    "raised": "#1d2126",
    "ink": "#e7eaee",
    "mute": "#a3acb7",
    "rule": "#363d46",
    "grid": "#272c33",
    "link": "#7ab8ff",
    "bad": "#ff938a",
    "heat": "#8cc8ff",
    "series": ("#c3cad3", "#56b4e9", "#ff9a4d", "#33c79b", "#e58ac0", "#dcbc3c", "#a99dff", "#ff8a80"),
}


def css_variables(palette: dict) -> str:
    """The palette as CSS variables."""
    named = [f"--{name}:{value}" for name, value in palette.items() if isinstance(value, str)]
    return ";".join([*named, *(f"--s{place}:{value}" for place, value in enumerate(palette["series"]))])


def _series() -> str:
    return "".join(f".s{place}{{--c:var(--s{place})}}" for place in range(len(LIGHT["series"])))


FIGURE_CSS = (
    _series()
    + """
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;fill:var(--ink);
unicode-bidi:isolate;font-variant-numeric:tabular-nums}
svg .tick{fill:var(--mute)}svg .head{font-weight:600}svg .token{font-size:11px;white-space:pre}
svg .number{font-size:12px}svg .over{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.paper{fill:var(--paper)}.grid{stroke:var(--grid)}.axis{stroke:var(--mute)}.zero{stroke:var(--ink);stroke-dasharray:3 3}
.curve,.thread{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}.thread{stroke-width:1.3;stroke-opacity:.75}
.band{fill:var(--c);fill-opacity:.14}.dot,.mean{fill:var(--c)}.seed{fill:var(--paper);stroke:var(--c);stroke-width:1.4}
.reach{stroke:var(--c);stroke-width:2.4;stroke-linecap:round}.knot{fill:var(--ink)}
.d1.curve,.d1.thread{stroke-dasharray:6 3}.d2.curve,.d2.thread{stroke-dasharray:2 3}
.frame{fill:none;stroke:var(--rule)}.weight{fill:var(--heat)}.nan{fill:var(--bad);fill-opacity:.25;stroke:var(--bad)}
"""
)


def _fixed(rules: str, palette: dict) -> str:
    """The rules with colors instead of variables, which drawing and typesetting programs do not support."""
    made = []
    for rule in filter(str.strip, rules.split("}")):
        selector, body = rule.strip().split("{")
        for name, value in palette.items():
            body = body.replace(f"var(--{name})", str(value))
        if "var(--c)" in body:
            for place, value in enumerate(palette["series"]):
                chosen = ",".join(f"{each}.s{place}" for each in selector.split(","))
                made.append(f"{chosen}{{{body.replace('var(--c)', value)}}}")
        elif "--c:" not in body:
            made.append(f"{selector}{{{body}}}")
    return "".join(made)


STANDALONE_CSS = _fixed(FIGURE_CSS, LIGHT)  # for figures in files of their own

PAGE_CSS = f"""
:root{{color-scheme:light dark;{css_variables(LIGHT)}}}
@media (prefers-color-scheme:dark){{:root{{{css_variables(DARK)}}}}}
@media print{{:root{{color-scheme:light;{css_variables(LIGHT)}}}}}
{FIGURE_CSS}"""
PAGE_CSS += """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-padding-top:1rem}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main,header,footer{max-width:80rem;margin:0 auto;padding:0 clamp(1rem,3vw,2rem)}
header{padding-top:2.5rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .6rem;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:3rem 0 .5rem;padding-top:1.2rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.6rem 0 .4rem;overflow-wrap:anywhere}
p{max-width:46rem;margin:.5rem 0}
.claim{font-size:1.08rem;white-space:pre-line}.finding{font-weight:600}.note,figcaption{color:var(--mute);font-size:.88rem}
a{color:var(--link);text-underline-offset:.18em;text-decoration-thickness:1px}
pre,code{font:.86rem/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{background:var(--raised);border:1px solid var(--rule);border-radius:6px;padding:.6rem .8rem;
overflow-x:auto;margin:.8rem 0}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.92rem;margin-top:1rem}
.scroll{overflow-x:auto;margin:.8rem 0;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums lining-nums}
th,td{padding:.36rem .44rem;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--grid);vertical-align:baseline}
thead th{white-space:normal;
border-bottom:1.5px solid var(--mute);border-top:1.5px solid var(--mute);font-weight:600;vertical-align:bottom}
tbody tr:last-child td,tbody tr:last-child th{border-bottom:1.5px solid var(--mute)}
tbody th{font-weight:600}td small{display:block;font-size:.88em;color:var(--mute);font-weight:400}
.w{text-align:left}
tbody tr:hover>*{background:var(--raised)}
.main th:first-child{position:sticky;left:0;background:var(--paper);z-index:1}
.main tbody tr:hover th:first-child{background:var(--raised)}
.main td a,.main th a{color:inherit;text-decoration:none}
.main td{vertical-align:top}.main tbody th{vertical-align:top}
.main td a:hover,.main th a:hover,.main td a:focus,.main th a:focus{text-decoration:underline;color:var(--link)}
tr.group>*{border-top:1.5px solid var(--rule)}
.main.one tr.group>*{border-top:0}
td.err{white-space:normal;min-width:14rem;overflow-wrap:anywhere;color:var(--bad);text-align:left}
td.long{white-space:normal;min-width:12rem;overflow-wrap:anywhere;text-align:left}
.failed,.diverged{color:var(--bad);font-weight:600}
.key{display:inline-block;width:.7em;height:.7em;border-radius:2px;background:var(--c);margin-right:.5em}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));
gap:1rem 2rem;align-items:start}
.figures.wide{grid-template-columns:minmax(0,1fr)}
figure{margin:.4rem 0;min-width:0}figure .scroll{margin:0}
figure svg{display:block;max-width:100%;height:auto}
figure .scroll svg{max-width:none}figure.chart .scroll svg{max-width:34rem}
figure.chart svg{width:100%}
figure.strip svg{width:100%;max-width:46rem;min-width:34rem}
.maps{display:flex;flex-wrap:wrap;gap:1.2rem 2.2rem;align-items:flex-start}
.maps figure{max-width:100%}
figcaption{margin-top:.3rem;max-width:44rem;overflow-wrap:anywhere}
figcaption b{color:var(--ink)}
.maps figcaption{max-width:20rem}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--link)}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.15rem .9rem;font-size:.9rem;margin:.4rem 0 1rem}
dt{color:var(--mute)}dd{margin:0;overflow-wrap:anywhere}
.runs:target,.runs:has(:target){outline:2px solid var(--link);outline-offset:.5rem;border-radius:4px}
footer{padding-top:2rem;padding-bottom:3rem}
@media (max-width:40rem){body{font-size:15px}header{padding-top:1.4rem}h1{font-size:1.5rem}th,td{padding:.34rem .5rem}
.maps{gap:1rem}dl{grid-template-columns:1fr}dt{margin-top:.3rem}}
@media print{body{font-size:10pt}nav,details>summary{display:none}.scroll{overflow:visible}h2{break-after:avoid}
figure,tr{break-inside:avoid}table{font-size:6.5pt}th,td{padding:.2rem .3rem;white-space:normal}
.main th:first-child{position:static}
a{color:inherit;text-decoration:none}figure.strip svg{min-width:0}}
@page{margin:14mm}
"""
