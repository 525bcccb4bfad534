import { effect } from "@preact/signals";
import { render } from "preact";
import { boot } from "./state/boot";
import { theme } from "./state/theme";
import { App } from "./views/App";
import { Damaged, Template } from "./views/Empty";
import "./styles.css";

const started = performance.now();
effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

const root = document.getElementById("app");
if (root !== null) {
  root.textContent = "Opening the report …";
  void boot(document).then((result) => {
    root.textContent = "";
    if (result.kind === "ready") {
      document.title = `${result.store.report.header.title} · PyMemTrace`;
      render(<App store={result.store} />, root);
    } else if (result.kind === "template") {
      render(<Template />, root);
    } else {
      render(<Damaged why={result.why} />, root);
    }
    // For measurements of how long opening takes.
    requestAnimationFrame(() => performance.measure("pymemtrace-open", { start: started }));
  });
}
