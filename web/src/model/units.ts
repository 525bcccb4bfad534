// Numbers in words.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** 1536 -> "1.5 KiB": three significant digits, binary units. */
export function humanBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1000 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  if (unit === 0) return `${Math.round(value)} B`;
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** The limits of an estimate in its unit: "38.9–43.6"; "sure" if there is nothing between them. */
export function limitsOfBytes(bytes: number, [low, high]: [number, number]): string {
  if (low === high) return "sure";
  let scale = 1;
  while (Math.abs(bytes) / scale >= 1000 && scale < 1024 ** (UNITS.length - 1)) scale *= 1024;
  const digits = scale === 1 || bytes / scale >= 100 ? 0 : bytes / scale >= 10 ? 1 : 2;
  const text = (value: number): string => (value / scale).toFixed(digits);
  return `${text(low)}–${text(high)}`;
}

export function limitsOfBlocks([low, high]: [number, number]): string {
  return low === high ? "sure" : `${grouped(low)}–${grouped(high)}`;
}

/** 1234567 -> "1,234,567" */
export function grouped(n: number): string {
  return Math.round(n).toLocaleString("en-US");
}

export function percent(part: number, whole: number): string {
  if (whole <= 0) return "0 %";
  const share = (part / whole) * 100;
  if (share === 0) return "0 %";
  if (share < 0.01) return "< 0.01 %";
  return `${share.toFixed(share >= 99.95 ? 0 : share >= 10 ? 1 : 2)} %`;
}

/** 84.2 -> "1 min 24 s" */
export function duration(seconds: number): string {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

/** A point on the time axis, with as many decimals as `stepS` needs: "1:24.5". */
export function clock(seconds: number, stepS: number): string {
  const decimals = stepS >= 1 ? 0 : stepS >= 0.1 ? 1 : stepS >= 0.01 ? 2 : 3;
  if (seconds < 60) return `${seconds.toFixed(decimals)} s`;
  const scale = 10 ** decimals;
  const rounded = Math.round(seconds * scale) / scale;
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor((rounded % 3600) / 60);
  const rest = (rounded % 60).toFixed(decimals).padStart(decimals === 0 ? 2 : decimals + 3, "0");
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}
