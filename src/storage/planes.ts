/**
 * Formats whose parts lie in several planes of one buffer: codes, then scales, then scales of scales. A plane is a
 * dense sequence of groups; elements are counted along the flattened tensor, so groups may straddle rows and the last
 * may be short.
 */
/** `elements` consecutive elements (Infinity: all) share one group of `bytes` bytes. */
export interface Plane {
  readonly elements: number;
  readonly bytes: number;
}

/** Every plane starts at a multiple of this, and so does the end of the buffer. */
const alignment = 64;

/**
 * The buffer begins with one line that holds, as u32, the offset of each plane in units of 64 bytes: with it a reader
 * needs no sizes, and the same kernel reads tensors of any size. The first plane begins at byte 64.
 */
export const planeUnit = alignment;

export interface PlaneLayout {
  /** Of each plane, from the start of the buffer. */
  readonly offsets: readonly number[];
  /** Of the whole buffer. */
  readonly bytes: number;
}

export function layOutPlanes(planes: readonly Plane[], elements: number): PlaneLayout {
  let bytes = alignment;
  const offsets = planes.map((plane) => {
    const start = bytes;
    const groups = plane.elements === Infinity ? 1 : Math.ceil(elements / plane.elements);
    bytes += Math.ceil((groups * plane.bytes) / alignment) * alignment;
    return start;
  });
  return { offsets, bytes };
}

/** The planes of an empty tensor of so many elements in `target`, which is cleared and given its first line. */
export function openPlanes(planes: readonly Plane[], target: Uint8Array, elements: number): Uint8Array[] {
  const { offsets, bytes } = layOutPlanes(planes, elements);
  target.fill(0);
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  offsets.forEach((offset, index) => {
    view.setUint32(index * 4, offset / planeUnit, true);
  });
  return offsets.map((offset, index) => target.subarray(offset, offsets[index + 1] ?? bytes));
}

/** Elements that share everything but the first plane. */
export function sharedGroup(planes: readonly Plane[]): number {
  return Math.min(...planes.slice(1).map(({ elements }) => elements));
}
