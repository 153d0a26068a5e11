// What a page is like: given to a copy of it, which it replaces by what it saw (JSON, in base64).
const all = what => [...document.querySelectorAll(what)];
const rgb = text => text.match(/[\d.]+/g).slice(0, 4).map(Number);
// WCAG 2.2, relative luminance and contrast ratio.
const light = color => {
  const [r, g, b] = color.map(part => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => {
  for (; element; element = element.parentElement) {
    const color = rgb(getComputedStyle(element).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color;
  }
  return [255, 255, 255];
};
const contrast = element => {
  const [one, two] = [light(rgb(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
  return (one + 0.05) / (two + 0.05);
};
const texts = all("body *").filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.tagName !== "SCRIPT");
addEventListener("load", () => {
  const page = document.documentElement;
  const seen = {
    title: document.title,
    rows: all("tbody tr").length,
    headers: all("tbody tr > th[scope=row]").length,
    scripts: document.scripts.length - 1,
    media: all("img, iframe, object, embed, video, audio, link, base, form").length,
    handlers: all("*").filter(e => e.getAttributeNames().some(name => name.startsWith("on"))).length,
    addresses: all("[src], [href]").map(e => e.getAttribute("src") ?? e.getAttribute("href")).filter(at => !at.startsWith("#")),
    targets: all("a[href^='#']").filter(a => !document.getElementById(a.getAttribute("href").slice(1))).length,
    ids: all("[id]").length - new Set(all("[id]").map(e => e.id)).size,
    fetched: performance.getEntriesByType("resource").length,
    landmarks: all("body > header, body > nav, body > main, body > footer").map(e => e.tagName.toLowerCase()),
    sections: all("main > section").length,
    unnamed: all("section").filter(e => !document.getElementById(e.getAttribute("aria-labelledby"))?.textContent).length,
    outcomes: all("tbody .outcome").map(e => e.textContent.trim()),
    causes: all("ol.causes li a").map(e => e.textContent),
    behind: all("ul.causes li a").map(e => e.textContent),
    text: document.body.textContent,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    width: innerWidth,
    beyond: Math.max(page.scrollWidth, document.body.scrollWidth) - page.clientWidth,
    outside: texts.filter(e => e.getBoundingClientRect().right > page.clientWidth + 1).map(e => e.outerHTML.slice(0, 80)),
    contrast: Math.min(...texts.map(contrast)),
  };
  document.documentElement.replaceChildren(Object.assign(document.createElement("body"), { textContent: btoa(unescape(encodeURIComponent(JSON.stringify(seen)))) }));
});
