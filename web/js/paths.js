// Drawn paths as data: reading and writing their JSON, and where each point is in each frame.
// The same rules, in the same numbers, are in vc_core/control/drawn.py.

export const EASINGS = ["linear", "ease in", "ease out", "ease in and out"]
export const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]
const PIECES = 16
const FARTHEST = 1e6

/**
 * Paths of a text: this widget's and KJNodes' (`[{points: [...]}, ...]`), or lists of points.
 * @param {string} text
 * @param {{width: number, height: number, frames: number}} canvas what they are scaled to, where the text tells its own
 * @returns {object[]}
 * @throws {Error} for anything else
 */
export function readPaths(text, canvas) {
  if (!text.trim()) return []
  return pathsOf(JSON.parse(text)).map((value) => drawn(value, canvas))
}

/** The JSON of paths. */
export function writePaths(paths, canvas) {
  if (!paths.length) return ""
  return JSON.stringify(paths.map((path) => {
    const value = { name: path.name, color: path.color, points: path.points.map(writtenPoint) }
    if (path.points.length === 1) value.isSinglePoint = true
    if (path.curve !== "line") value.curve = path.curve
    if (path.box) value.box = path.box.map(rounded)
    value.canvas = { ...canvas }
    return value
  }))
}

export function newPath(number, points) {
  return { name: `path ${number + 1}`, color: COLOURS[number % COLOURS.length], points, curve: "line", box: null }
}

/** Where a path's point is in each of `frames` frames: `[[x, y], ...]`. */
export function samplePath(path, frames) {
  const { line, corners } = polyline(path)
  const ways = [0]
  for (let i = 1; i < line.length; i++) ways.push(ways[i - 1] + Math.hypot(line[i][0] - line[i - 1][0], line[i][1] - line[i - 1][1]))
  const keys = keyframes(path, frames)
  const known = corners.map((corner) => ways[corner])
  return Array.from({ length: frames }, (_, time) => placeAt(line, ways, wayAt(path, keys, known, time)))
}

/** The line that is drawn: `[[x, y], ...]`. */
export function lineOf(path) {
  return polyline(path).line
}

/** The number of a path's point after which a place on its line comes. */
export function pointBefore(path, place) {
  return polyline(path).corners.findLastIndex((corner) => corner <= place)
}

export function rounded(number) {
  return Math.round(number * 100) / 100
}

function writtenPoint(point) {
  const value = { x: rounded(point.x), y: rounded(point.y) }
  if (point.frame !== null) value.frame = rounded(point.frame)
  if (point.ease !== "linear") value.ease = point.ease
  return value
}

function pathsOf(value) {
  if (typeof value === "string") return pathsOf(JSON.parse(value))
  if (Array.isArray(value?.points)) return value.points.length ? [value] : []
  if (!Array.isArray(value)) throw new Error("This is no list of paths.")
  if (!value.length) return []
  if (isPoint(value[0])) return [{ points: value, sampled: true }]
  return value.flatMap(pathsOf)
}

function isPoint(value) {
  return Array.isArray(value) ? typeof value[0] === "number" : typeof value === "object" && value !== null && !("points" in value)
}

function drawn(value, canvas) {
  const own = value.canvas ?? canvas
  const across = canvas.width / own.width, down = canvas.height / own.height
  const along = own.frames > 1 ? (canvas.frames - 1) / (own.frames - 1) : 1
  const last = value.points.length - 1
  const points = value.points.map((point, number) => {
    const [x, y] = Array.isArray(point) ? point : [point.x, point.y]
    if (![x, y].every((each) => Number.isFinite(each) && Math.abs(each) <= FARTHEST)) throw new Error(`Point ${number} has no place.`)
    let frame = Number.isFinite(point.frame) ? point.frame * along : null
    if (value.sampled && last) frame = number * (canvas.frames - 1) / last
    return { x: x * across, y: y * down, frame, ease: EASINGS.includes(point.ease) ? point.ease : "linear" }
  })
  const box = Array.isArray(value.box) && value.box[0] > 0 && value.box[1] > 0 ? [value.box[0] * across, value.box[1] * down] : null
  const colour = /^#[0-9a-f]{3,8}$/i.test(value.color) ? value.color : COLOURS[0]
  return { name: String(value.name ?? "path").slice(0, 60), color: colour, points, curve: value.curve === "smooth" ? "smooth" : "line", box }
}

function polyline(path) {
  const points = path.points.map((point) => [point.x, point.y])
  const count = points.length
  if (path.curve === "line" || count < 3) return { line: points, corners: points.map((_, number) => number) }
  const beyond = (end, next) => [2 * end[0] - next[0], 2 * end[1] - next[1]]
  const padded = [beyond(points[0], points[1]), ...points, beyond(points[count - 1], points[count - 2])]
  const line = []
  for (let i = 0; i < count - 1; i++) {
    const [before, start, end, after] = padded.slice(i, i + 4)
    for (let piece = 0; piece < PIECES; piece++) {
      const t = piece / PIECES // a Catmull-Rom curve: it goes through all points
      line.push([0, 1].map((axis) => {
        const [a, b, c, d] = [before[axis], start[axis], end[axis], after[axis]]
        return b + (t / 2) * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * b - 3 * c + d - a)))
      }))
    }
  }
  line.push(points[count - 1])
  return { line, corners: points.map((_, number) => number * PIECES) }
}

/** `[frame, number]` of each point that has a frame; the first and the last always have one. */
export function keyframes(path, frames) {
  const last = path.points.length - 1
  const known = new Map()
  path.points.forEach((point, number) => { if (point.frame !== null) known.set(number, point.frame) })
  if (!known.has(0)) known.set(0, 0)
  if (!known.has(last)) known.set(last, Math.max(frames - 1, ...known.values()))
  return [...known].sort(([one], [other]) => one - other).map(([number, frame]) => [frame, number])
}

function wayAt(path, keys, ways, time) {
  if (time <= keys[0][0]) return ways[keys[0][1]]
  for (let i = 0; i + 1 < keys.length; i++) {
    const [start, first] = keys[i], [end, last] = keys[i + 1]
    if (time <= end) {
      const share = end > start ? eased((time - start) / (end - start), path.points[first].ease) : 1
      return ways[first] + (ways[last] - ways[first]) * share
    }
  }
  return ways[keys[keys.length - 1][1]]
}

function eased(share, ease) {
  if (ease === "ease in") return share * share
  if (ease === "ease out") return share * (2 - share)
  return ease === "ease in and out" ? share * share * (3 - 2 * share) : share
}

function placeAt(line, ways, way) {
  let after = ways.findIndex((each) => each >= way)
  if (line.length === 1) return [...line[0]]
  after = Math.max(after < 0 ? line.length - 1 : after, 1)
  const span = ways[after] - ways[after - 1]
  const share = span > 0 ? Math.min(Math.max((way - ways[after - 1]) / span, 0), 1) : 0
  return [0, 1].map((axis) => line[after - 1][axis] + (line[after][axis] - line[after - 1][axis]) * share)
}
