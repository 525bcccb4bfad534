import { grouped, humanBytes, percent } from "../model/units";
import type { Store } from "../state/store";

function outcome(store: Store): { text: string; bad: boolean } {
  const { error, frames, count } = store.search.value;
  if (error !== null) return { text: error, bad: true };
  const matched = store.matched.value;
  const tree = store.forward.value;
  const bytes = store.metric.value === "bytes";
  const part = matched === null ? 0 : bytes ? matched.bytes : matched.blocks;
  const amount = bytes ? humanBytes(part) : `${grouped(part)} blocks`;
  const share = percent(part, tree.width(0));
  if (frames === null) {
    return store.picked.value === null ? { text: "", bad: false } : { text: `Chosen site: ${amount}, ${share}`, bad: false };
  }
  if (count === 0) return { text: "Nothing matches the search.", bad: true };
  return { text: `${grouped(count)} ${count === 1 ? "site" : "sites"}: ${amount}, ${share}`, bad: false };
}

export function Search({ store }: { store: Store }) {
  const { text, bad } = outcome(store);
  return (
    <div class="search" role="search">
      <output class={bad ? "bad" : ""} htmlFor="search" aria-live="polite">{text}</output>
      <input
        id="search" type="search" placeholder="Search functions and files ( / )" spellcheck={false} autocomplete="off"
        aria-label="Search functions and files" aria-invalid={store.search.value.error !== null}
        value={store.searchText.value}
        onInput={(event) => store.setSearch(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          store.setSearch("");
          event.currentTarget.blur();
        }}
      />
      <button
        type="button" class="regex" aria-pressed={store.searchRegex.value} title="Regular expression"
        aria-label="Search by regular expression"
        onClick={() => (store.searchRegex.value = !store.searchRegex.value)}
      >
        .*
      </button>
    </div>
  );
}
