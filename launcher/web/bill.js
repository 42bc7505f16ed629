// The bill: every thread second in one bin, times a price. A bar to see it, numbers to read it.
import {element, fill, set_attribute, set_text} from "./dom.js";
import {dollars, number, percent} from "./words.js";

const kMeanings = {
  useful: "forward, backward, weight gradients, optimizer",
  evaluation: "of held-out data",
  messages: "idle while the loop thread handles what came",
  narrow: "idle beside a thread that works: too little to do at once",
  bubble: "idle until another stage has done its part",
  imbalance: "idle until rows come from or for experts",
  waiting: "idle until gradients, a vote, a decision or tokens come",
  checkpoint: "copying, writing, or idle until it is written",
  redo: "what a loss cost",
  "start-up": "before the first step, and the end",
  rollout: "sampling what steps learn from",
  scoring: "log-probabilities of samples, by themselves",
  "rollout tail": "idle until the last answers are sampled and judged",
};
const kOrder = Object.keys(kMeanings);
const plain = (bin) => bin.replaceAll("_", " ").replace("start up", "start-up");
const holder_of = (worst) => (typeof worst === "string" ? worst : worst?.holder);

export function make_bill(app) {
  const section = document.getElementById("bill"), bar = section.querySelector(".bar"),
        list = section.querySelector(".bins");
  const make = () => element("li", {}, element("i"), element("span"), element("b"), element("span"), element("small"));
  return app.in_section(section, () => {
    const bill = app.view?.bill;
    if (!bill) return set_text(section.querySelector("small"), "nothing is billed yet");
    const sum = Object.values(bill.bins).reduce((a, b) => a + b, 0) || 1;
    const rank = (bin) => (kOrder.indexOf(bin) + 1 || 99);
    const bins = Object.entries(bill.bins)
                     .map(
                         ([bin, seconds]) =>
                             ({bin: plain(bin), seconds, share: seconds / sum, worst: holder_of(bill.worst?.[bin])}))
                     .filter(({seconds}) => seconds > 0)
                     .sort((a, b) => rank(a.bin) - rank(b.bin));
    fill(bar, bins, () => element("span"), (part, {bin, share}) => {
      part.style.flexGrow = share;
      set_attribute(part, "data-bin", bin);
      set_attribute(part, "title", `${bin} ${percent(share)}`);
      set_text(part, share > 0.06 ? `${bin} ${percent(share)}` : "");
    });
    set_attribute(bar, "aria-label", bins.map(({bin, share}) => `${bin} ${percent(share)}`).join(", "));
    fill(list, [...bins].sort((a, b) => b.seconds - a.seconds), make, (item, {bin, seconds, share, worst}) => {
      set_attribute(item, "title", kMeanings[bin] || bin);
      set_attribute(item.children[0], "data-bin", bin);
      set_text(item.children[1], bin);
      set_text(item.children[2], percent(share));
      set_text(item.children[3], `${number(seconds)} s`);
      set_text(item.children[4], worst ? `mostly ${worst}` : "");
    });
    set_text(
        section.querySelector("small"), `${number(bill.thread_seconds)} thread seconds, ${dollars(bill.cost_dollars)}`);
  });
}
