// The drawing widget of VideoCrafter Draw Trajectory, in ComfyUI's page: for its canvas and its Vue nodes.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { PathEditor } from "./editor.js"
import { texts } from "./texts.js"

const NODE = "VideoCrafterDrawTrajectory"
const SMALLEST = 330 // pixels of the node's height for the widget
const MARGINS = 20 // which the canvas leaves above and below it
const SIZE = [460, 640]

app.registerExtension({
  name: "VideoCrafter.DrawTrajectory",
  nodeCreated(node) {
    if (node.comfyClass === NODE) addEditor(node)
  },
})

function addEditor(node) {
  const named = (name) => node.widgets.find((widget) => widget.name === name)
  const text = named("paths")
  if (!text) return
  text.hidden = true // of the canvas
  text.options.hidden = true // of Vue nodes
  const editor = new PathEditor(
    {
      read: () => String(text.value ?? ""),
      write: (value) => {
        text.value = value
        node.graph?.setDirtyCanvas?.(true, true)
      },
      canvas: () => {
        const [width, height, frames] = ["width", "height", "length"].map((name) => Math.max(Number(named(name)?.value) || 1, 1))
        return { width, height, frames }
      },
      linked: () => isLinked(node, "paths"),
    },
    texts(app.extensionManager?.setting?.get("Comfy.Locale")),
  )
  const widget = node.addDOMWidget("drawing", "vc_drawing", editor.element, {
    serialize: false, hideOnZoom: false, getMinHeight: () => Math.max(SMALLEST, editor.panel.leastHeight + MARGINS),
  })
  widget.serialize = false // the text is what is kept
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])])

  const refresh = () => {
    editor.setBackground(imageBehind(node))
    editor.load()
  }
  for (const name of ["width", "height", "length", "paths"]) after(named(name), "callback", refresh)
  after(node, "onConfigure", refresh)
  after(node, "onConnectionsChange", () => queueMicrotask(refresh))
  after(node, "onExecuted", (output) => {
    const [file] = output?.vc_background ?? []
    if (file) node.vcBackground = api.apiURL(`/view?${new URLSearchParams(file)}`)
    refresh()
  })
  after(node, "onRemoved", () => editor.destroy())
  editor.element.addEventListener("pointerenter", refresh)
}

/** The address of the image to draw on: what the node had when it ran, or what is chosen in a connected Load Image; null for none. */
function imageBehind(node) {
  if (!isLinked(node, "image")) return null
  const slot = node.inputs.findIndex((input) => input.name === "image")
  const origin = node.getInputNode?.(slot)
  const chosen = origin?.comfyClass === "LoadImage" ? origin.widgets?.find((widget) => widget.name === "image")?.value : null
  if (typeof chosen !== "string" || !chosen) return node.vcBackground ?? null
  const [, path, type] = chosen.match(/^(.*?)(?: \[(input|output|temp)\])?$/s)
  const [, subfolder, filename] = path.match(/^(?:(.*)\/)?([^/]*)$/s)
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder: subfolder ?? "", type: type ?? "input" })}`)
}

function isLinked(node, name) {
  return node.inputs?.find((input) => input.name === name)?.link != null
}

/** Call something after a method of an object, which may have none. */
function after(object, name, then) {
  if (!object) return
  const before = object[name]
  object[name] = function (...values) {
    const result = before?.apply(this, values)
    then(...values)
    return result
  }
}
