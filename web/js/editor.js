// The drawing area: paths over a picture, by mouse, touch and keyboard. It knows nothing of ComfyUI.

import { Panel } from "./panel.js"
import { lineOf, newPath, pointBefore, readPaths, samplePath, writePaths } from "./paths.js"
import { paint } from "./painting.js"

const MARGIN = 22 // around the picture, in pixels of the screen: points can be put outside it
const REACH = { mouse: 9, pen: 12, touch: 20 } // how near a pointer must be, in the same
const FRAMES_PER_SECOND = 8
const LONGEST_HISTORY = 100

export class PathEditor {
  /**
   * @param {{read: () => string, write: (text: string) => void, canvas: () => {width: number, height: number, frames: number},
   *   linked: () => boolean}} store where the text is kept, and the size and length of the video
   * @param {object} texts of texts.js
   */
  constructor(store, texts) {
    this.store = store
    this.texts = texts
    this.paths = []
    this.path = -1 // the chosen path, and the chosen point of it
    this.point = -1
    this.frame = 0
    this.drag = null
    this.playing = 0
    this.problem = ""
    this.source = this.background = null
    this.past = []
    this.future = []
    this.area = document.createElement("canvas")
    this.area.className = "vc-draw-area"
    this.area.tabIndex = 0
    this.area.setAttribute("role", "application")
    this.area.setAttribute("aria-label", texts.area)
    // ComfyUI leaves Ctrl+Z to what has a history of its own, which it knows by this.
    this.area.type = "textarea"
    this.panel = new Panel(this, texts)
    this.element = this.panel.element
    this.listen()
    this.observer = new ResizeObserver(() => this.render())
    this.observer.observe(this.area)
    this.load()
  }

  get chosen() {
    return this.paths[this.path]
  }

  get chosenPoint() {
    return this.chosen?.points[this.point]
  }

  /** Take over the stored text, scaled to the video's size and length. */
  load() {
    if (this.drag) return
    this.canvas = this.store.canvas()
    this.problem = ""
    try {
      this.paths = readPaths(this.store.read(), this.canvas)
    } catch (error) {
      this.paths = []
      this.problem = this.texts.unread + error.message
    }
    this.path = Math.min(this.path < 0 ? this.paths.length - 1 : this.path, this.paths.length - 1)
    this.point = Math.min(this.point, (this.chosen?.points.length ?? 0) - 1)
    this.frame = Math.min(this.frame, this.canvas.frames - 1)
    this.render()
  }

  /** Store what is drawn; what was stored before can be had back by undo. */
  save() {
    const text = writePaths(this.paths, this.canvas)
    const before = this.store.read()
    if (text !== before) {
      this.past.push(before)
      this.past.splice(0, this.past.length - LONGEST_HISTORY)
      this.future = []
      this.problem = ""
      this.store.write(text)
    }
    this.render()
  }

  /** Store another text, such as one that was pasted. */
  replace(text) {
    if (text === this.store.read()) return
    this.past.push(this.store.read())
    this.future = []
    this.store.write(text)
    this.load()
  }

  undo() {
    this.travel(this.past, this.future)
  }

  redo() {
    this.travel(this.future, this.past)
  }

  travel(from, to) {
    if (!from.length) return
    to.push(this.store.read())
    this.store.write(from.pop())
    this.load()
  }

  startPath() {
    this.path = -1
    this.point = -1
    this.render()
  }

  /** A path of one point, in the middle. */
  addStill() {
    this.paths.push(newPath(this.paths.length, [this.newPoint(this.canvas.width / 2, this.canvas.height / 2)]))
    this.path = this.paths.length - 1
    this.point = 0
    this.save()
  }

  removePoint() {
    if (!this.chosenPoint) return
    this.chosen.points.splice(this.point, 1)
    if (!this.chosen.points.length) return this.removePath()
    this.point = Math.min(this.point, this.chosen.points.length - 1)
    this.save()
  }

  removePath() {
    if (!this.chosen) return
    this.paths.splice(this.path, 1)
    this.path = Math.min(this.path, this.paths.length - 1)
    this.point = -1
    this.save()
  }

  toggleBox() {
    if (!this.chosen) return
    this.chosen.box = this.chosen.box ? null : [this.canvas.width / 4, this.canvas.height / 4]
    this.save()
  }

  toggleSmooth() {
    if (!this.chosen) return
    this.chosen.curve = this.chosen.curve === "smooth" ? "line" : "smooth"
    this.save()
  }

  /** Give the chosen point a frame, or none. */
  setFrame(frame) {
    if (!this.chosenPoint) return
    const neighbours = this.chosen.points.map((point, number) => (number === this.point ? frame : point.frame)).filter((each) => each !== null)
    if (neighbours.some((each, number) => number && each < neighbours[number - 1])) {
      this.problem = this.texts.rise
      return this.render()
    }
    this.chosenPoint.frame = frame
    this.save()
  }

  setPoint(values) {
    if (!this.chosenPoint) return
    Object.assign(this.chosenPoint, values)
    this.save()
  }

  setBox(width, height) {
    if (!this.chosen?.box) return
    this.chosen.box = [width, height]
    this.save()
  }

  setBackground(source) {
    if (this.source === source) return
    this.source = source
    this.background = null
    if (source) {
      const image = new Image()
      image.onload = () => {
        if (this.source !== source) return
        this.background = image
        this.render()
      }
      image.src = source
    }
    this.render()
  }

  show(frame) {
    this.frame = Math.min(Math.max(frame, 0), this.canvas.frames - 1)
    this.render()
  }

  togglePlay() {
    if (this.playing) {
      cancelAnimationFrame(this.playing)
      this.playing = 0
      return this.render()
    }
    const start = performance.now() - (this.frame / FRAMES_PER_SECOND) * 1000
    const step = (now) => {
      if (!this.area.isConnected) { this.playing = 0; return }
      this.playing = requestAnimationFrame(step)
      const frame = Math.floor(((now - start) / 1000) * FRAMES_PER_SECOND) % this.canvas.frames
      if (frame !== this.frame) this.show(Math.max(frame, 0))
    }
    this.playing = requestAnimationFrame(step)
    this.render()
  }

  destroy() {
    cancelAnimationFrame(this.playing)
    this.observer.disconnect()
    window.removeEventListener("blur", this.drop)
  }

  // Places: of the picture, and of the screen.

  /** How the picture lies in the area: pixels of the area for one of the picture, and its left and top. */
  get view() {
    const width = this.area.clientWidth, height = this.area.clientHeight
    const scale = Math.max(Math.min((width - 2 * MARGIN) / this.canvas.width, (height - 2 * MARGIN) / this.canvas.height), 1e-3)
    return { width, height, scale, left: (width - this.canvas.width * scale) / 2, top: (height - this.canvas.height * scale) / 2 }
  }

  /** Where an event is: in the picture, and within which distance there it touches. */
  place(event) {
    const box = this.area.getBoundingClientRect(), view = this.view // the box is larger where the page is zoomed
    const x = ((event.clientX - box.left) / box.width) * view.width, y = ((event.clientY - box.top) / box.height) * view.height
    const reach = ((REACH[event.pointerType] ?? REACH.mouse) / view.scale) * (view.width / box.width)
    return { x: (x - view.left) / view.scale, y: (y - view.top) / view.scale, reach }
  }

  /** What is at a place: a point, a corner of the chosen path's box, or a line. */
  find({ x, y, reach }) {
    const order = this.paths.map((_, number) => number).sort((one, other) => (other === this.path) - (one === this.path))
    for (const path of order) {
      const near = nearest(this.paths[path].points.map((point) => [point.x, point.y]), x, y)
      if (near.distance <= reach) return { kind: "point", path, point: near.index }
    }
    if (this.chosen?.box) {
      const [centre, half] = [samplePath(this.chosen, this.canvas.frames)[this.frame], this.chosen.box.map((side) => side / 2)]
      if (Math.hypot(Math.abs(x - centre[0]) - half[0], Math.abs(y - centre[1]) - half[1]) <= reach) return { kind: "box", path: this.path, centre }
    }
    for (const path of order) {
      const near = nearestOnLine(lineOf(this.paths[path]), x, y)
      if (near.distance <= reach * 0.7) return { kind: "line", path, point: pointBefore(this.paths[path], near.index) }
    }
    return null
  }

  newPoint(x, y) {
    return { x, y, frame: null, ease: "linear" }
  }

  /** Add a point behind the chosen path's last one, or begin a path. */
  addPoint(x, y) {
    if (!this.chosen) {
      this.paths.push(newPath(this.paths.length, []))
      this.path = this.paths.length - 1
    }
    this.chosen.points.push(this.newPoint(x, y))
    this.point = this.chosen.points.length - 1
  }

  // Events.

  listen() {
    const area = this.area
    area.addEventListener("pointerdown", (event) => this.press(event))
    area.addEventListener("pointermove", (event) => this.move(event))
    this.drop = () => this.release()
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) area.addEventListener(kind, this.drop)
    window.addEventListener("blur", this.drop)
    area.addEventListener("contextmenu", (event) => {
      event.preventDefault()
      event.stopPropagation()
    })
    area.addEventListener("keydown", (event) => this.type(event))
    area.addEventListener("focus", () => this.load())
    area.addEventListener("blur", () => this.render())
  }

  press(event) {
    if (event.button === 1 || (this.drag && event.pointerId !== this.drag.pointer)) return
    event.preventDefault()
    event.stopPropagation()
    this.area.focus({ preventScroll: true })
    const place = this.place(event), found = this.find(place)
    if (event.button === 2) {
      if (found?.kind === "point") [this.path, this.point] = [found.path, found.point], this.removePoint()
      return
    }
    if (this.problem && !this.paths.length) return // a text that can't be read isn't replaced by a click
    const drag = { pointer: event.pointerId, kind: "point", x: place.x, y: place.y }
    if (event.shiftKey && found) {
      this.path = found.path
      drag.kind = "path"
    } else if (!found) {
      this.addPoint(place.x, place.y)
    } else if (found.kind === "line" && found.path === this.path) {
      this.chosen.points.splice(found.point + 1, 0, this.newPoint(place.x, place.y))
      this.point = found.point + 1
    } else {
      this.path = found.path
      if (found.kind === "point") this.point = found.point
      else if (found.kind === "box") Object.assign(drag, { kind: "box", centre: found.centre })
      else [this.point, drag.kind] = [found.point, "none"] // a line of another path is only chosen
    }
    this.drag = drag
    this.area.setPointerCapture(event.pointerId)
    this.render()
  }

  move(event) {
    if (!this.drag || event.pointerId !== this.drag.pointer) return
    event.stopPropagation()
    if (event.pointerType === "mouse" && !event.buttons) return this.release() // let go where no event tells of it
    const { x, y } = this.place(event), drag = this.drag
    if (drag.kind === "box") {
      this.chosen.box = [x - drag.centre[0], y - drag.centre[1]].map((half) => Math.max(Math.abs(half) * 2, 2))
    } else if (drag.kind !== "none") {
      const moved = drag.kind === "path" ? this.chosen.points : [this.chosenPoint]
      for (const point of moved) Object.assign(point, { x: point.x + x - drag.x, y: point.y + y - drag.y })
    }
    Object.assign(drag, { x, y })
    this.render()
  }

  release() {
    if (!this.drag) return
    this.drag = null
    this.save()
  }

  type(event) {
    const command = (event.ctrlKey || event.metaKey) && !event.altKey ? this.shortcut(event) : event.altKey ? null : this.key(event)
    if (!command) return
    event.preventDefault()
    event.stopPropagation()
    command()
  }

  shortcut(event) {
    const key = event.key.toLowerCase()
    if (key === "z") return event.shiftKey ? () => this.redo() : () => this.undo()
    return key === "y" ? () => this.redo() : null
  }

  key(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }
    const step = arrows[event.key]
    if (step) return () => this.nudge(step, event.shiftKey ? 10 : 1)
    const keys = {
      Enter: () => this.addNearby(), Delete: () => (event.shiftKey ? this.removePath() : this.removePoint()),
      Backspace: () => this.removePoint(), n: () => this.startPath(), b: () => this.toggleBox(), s: () => this.toggleSmooth(),
      k: () => this.setFrame(this.chosenPoint?.frame === this.frame ? null : this.frame), " ": () => this.togglePlay(),
      ",": () => this.choose(0, -1), ".": () => this.choose(0, 1), PageUp: () => this.choose(-1, 0), PageDown: () => this.choose(1, 0),
      Home: () => this.show(0), End: () => this.show(this.canvas.frames - 1),
    }
    return keys[event.key.length === 1 ? event.key.toLowerCase() : event.key]
  }

  nudge([right, down], far) {
    if (this.chosenPoint) this.setPoint({ x: this.chosenPoint.x + right * far, y: this.chosenPoint.y + down * far })
    else this.show(this.frame + right)
  }

  addNearby() {
    const last = this.chosen?.points.at(-1), { width, height } = this.canvas
    this.addPoint(last ? Math.min(last.x + width / 8, width) : width / 2, last ? last.y : height / 2)
    this.save()
  }

  choose(paths, points) {
    if (!this.paths.length) return
    if (paths) [this.path, this.point] = [wrapped(this.path + paths, this.paths.length), 0]
    else if (this.chosen) this.point = wrapped(this.point + points, this.chosen.points.length)
    this.render()
  }

  render() {
    this.canvas = this.drag ? this.canvas : this.store.canvas()
    paint(this)
    this.panel.update()
  }
}

function wrapped(number, count) {
  return ((number % count) + count) % count
}

function nearest(points, x, y) {
  const distances = points.map(([px, py]) => Math.hypot(px - x, py - y))
  const distance = Math.min(...distances)
  return { index: distances.lastIndexOf(distance), distance }
}

function nearestOnLine(line, x, y) {
  let best = { index: 0, distance: Infinity }
  for (let index = 0; index + 1 < line.length; index++) {
    const [[x0, y0], [x1, y1]] = [line[index], line[index + 1]]
    const length = (x1 - x0) ** 2 + (y1 - y0) ** 2
    const share = length ? Math.min(Math.max(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0), 1) : 0
    const distance = Math.hypot(x0 + (x1 - x0) * share - x, y0 + (y1 - y0) * share - y)
    if (distance < best.distance) best = { index, distance }
  }
  return best
}
