// Typed arrays that grow: for results whose size is known only at the end.

export class Index {
  private data = new Uint32Array(1024);
  length = 0;

  push(value: number): number {
    if (this.length === this.data.length) {
      const larger = new Uint32Array(this.length * 2);
      larger.set(this.data);
      this.data = larger;
    }
    this.data[this.length] = value;
    return this.length++;
  }
  get(at: number): number {
    return this.data[at];
  }
  set(at: number, value: number): void {
    this.data[at] = value;
  }
  view(): Uint32Array {
    return this.data.subarray(0, this.length);
  }
}

export class Column {
  private data = new Float64Array(1024);
  length = 0;

  push(value: number): number {
    if (this.length === this.data.length) {
      const larger = new Float64Array(this.length * 2);
      larger.set(this.data);
      this.data = larger;
    }
    this.data[this.length] = value;
    return this.length++;
  }
  get(at: number): number {
    return this.data[at];
  }
  set(at: number, value: number): void {
    this.data[at] = value;
  }
  add(at: number, value: number): void {
    this.data[at] += value;
  }
  view(): Float64Array {
    return this.data.subarray(0, this.length);
  }
}
