// What is seen in the drawing area.

import { lineOf, samplePath } from "./paths.js"

const GROUND = "#18191c", PICTURE = "#2a2c31", EDGE = "#8a8d94", LIGHT = "#ffffff", DARK = "#000000"
const CROWD = 60 // points of a path, from which on they are small

/** Draw an editor's picture, paths and points. */
export function paint(editor) {
  const { area, view, canvas } = editor
  if (!view.width || !view.height) return
  const ratio = Math.min(window.devicePixelRatio || 1, 2)
  area.width = Math.round(view.width * ratio)
  area.height = Math.round(view.height * ratio)
  const draw = area.getContext("2d")
  draw.scale(ratio, ratio)
  draw.fillStyle = GROUND
  draw.fillRect(0, 0, view.width, view.height)
  paintPicture(draw, editor.background, view.left, view.top, canvas.width * view.scale, canvas.height * view.scale)
  const at = ([x, y]) => [view.left + x * view.scale, view.top + y * view.scale]
  editor.paths.forEach((path, number) => paintPath(draw, path, at, number === editor.path, number === editor.path ? editor.point : -1))
  for (const path of editor.paths) paintMoment(draw, path, at, view.scale, samplePath(path, canvas.frames)[editor.frame])
}

function paintPicture(draw, image, left, top, width, height) {
  draw.fillStyle = PICTURE
  draw.fillRect(left, top, width, height)
  if (image) { // scaled to cover the picture, and cut at the centre, as the model's image is
    const scale = Math.max(width / image.naturalWidth, height / image.naturalHeight)
    const [w, h] = [width / scale, height / scale]
    draw.drawImage(image, (image.naturalWidth - w) / 2, (image.naturalHeight - h) / 2, w, h, left, top, width, height)
  }
  draw.strokeStyle = EDGE
  draw.lineWidth = 1
  draw.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1)
}

function paintPath(draw, path, at, chosen, point) {
  const line = lineOf(path).map(at)
  for (const [colour, width] of [[DARK, chosen ? 5 : 3], [path.color, chosen ? 3 : 1.5]]) {
    draw.strokeStyle = colour
    draw.lineWidth = width
    draw.lineJoin = "round"
    draw.beginPath()
    line.forEach(([x, y], number) => (number ? draw.lineTo(x, y) : draw.moveTo(x, y)))
    draw.stroke()
  }
  const crowded = path.points.length > CROWD
  path.points.forEach((each, number) => {
    const [x, y] = at([each.x, each.y])
    const radius = number === point ? 7 : crowded ? 1.5 : chosen ? 5 : 3.5
    draw.beginPath()
    if (each.frame === null) draw.arc(x, y, radius, 0, 2 * Math.PI)
    else draw.rect(x - radius, y - radius, 2 * radius, 2 * radius) // a keyframe
    draw.fillStyle = number === point ? LIGHT : path.color
    draw.strokeStyle = DARK
    draw.lineWidth = 1.5
    draw.fill()
    if (!crowded || number === point) draw.stroke()
  })
}

/** Where the path's point and its box are in the frame that is shown. */
function paintMoment(draw, path, at, scale, place) {
  const [x, y] = at(place)
  draw.strokeStyle = path.color
  draw.lineWidth = 2
  if (path.box) {
    const [w, h] = path.box.map((side) => side * scale)
    draw.strokeRect(x - w / 2, y - h / 2, w, h)
    draw.fillStyle = `${path.color.slice(0, 7)}30`
    draw.fillRect(x - w / 2, y - h / 2, w, h)
  }
  draw.beginPath()
  draw.arc(x, y, 9, 0, 2 * Math.PI)
  draw.stroke()
  draw.beginPath()
  draw.arc(x, y, 2.5, 0, 2 * Math.PI)
  draw.fillStyle = LIGHT
  draw.fill()
}
