import { COLOURED_MODULES } from "../state/colours";
import type { Store } from "../state/store";
import { palette } from "../state/theme";

function Swatch({ colour }: { colour: string }) {
  return <i class="swatch" aria-hidden="true" style={{ background: colour }} />;
}

export function Legend({ store }: { store: Store }) {
  const p = palette.value;
  if (store.colourBy.value === "share") {
    return (
      <ul class="legend" aria-label="Colours">
        <li>Allocated by the frame itself:</li>
        <li>little {p.shares.map((colour) => <Swatch colour={colour} key={colour} />)} most</li>
      </ul>
    );
  }
  const named = store.ranks.slice(0, COLOURED_MODULES);
  return (
    <ul class="legend" aria-label="Colours of modules">
      {named.map((rank, i) => <li key={rank.name}><Swatch colour={p.modules[i]} />{rank.name}</li>)}
      {store.ranks.length > named.length && (
        <li><Swatch colour={p.other} />{store.ranks.length - named.length} other modules</li>
      )}
    </ul>
  );
}
