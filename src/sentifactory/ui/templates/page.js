// What lists offer, and which of them the user has chosen from: a choice of the user is never overwritten.
globalThis.sentifactory = (() => {
  const chosen = new Set(), nothing = { __type__: "update" };
  const update = (id, offer, current) => {
    if (!offer?.names) return nothing;
    const stays = offer.names.includes(current) && (chosen.has(id) || offer.isKept);
    return stays || current === offer.first ? nothing : { ...nothing, value: offer.first };
  };
  return {
    choose: (id) => { chosen.add(id); return []; },
    forget: (id) => { chosen.delete(id); return []; },
    offer: (ids, offers, current) => {
      const all = JSON.parse(offers);
      return ids.map((id, at) => update(id, all[at], current[at]));
    },
  };
})();
// Embedded reports are as high as their content, and in the language of the page. They run no scripts of their own.
(() => {
  const selector = "iframe.sf-report";
  const follow = (frame) => {
    const inner = frame.contentDocument;
    if (!inner || !inner.body) return;
    const fit = () => { frame.style.height = `${Math.ceil(inner.documentElement.getBoundingClientRect().height)}px`; };
    const speak = () => {
      const choice = inner.getElementById(`choose-${document.body.dataset.language}`);
      if (choice) choice.checked = true;
      fit();
    };
    new ResizeObserver(fit).observe(inner.documentElement);
    new MutationObserver(speak).observe(document.body, { attributeFilter: ["data-language"] });
    speak();
  };
  // Gradio gives each radio button a group of its own, so that arrow keys would not move between them.
  new MutationObserver(() => {
    for (const radio of document.querySelectorAll("#language input:not([name=language])")) radio.name = "language";
  }).observe(document, { childList: true, subtree: true });
  // Loads of frames do not bubble.
  document.addEventListener("load", (event) => { if (event.target.matches?.(selector)) follow(event.target); }, true);
})();
