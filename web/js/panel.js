// The drawing widget's buttons and fields, around the drawing area.

import { EASINGS, rounded } from "./paths.js"

// The buttons' signs.
const SIGNS = {
  path: "+ path", still: "+ point", box: "▭", smooth: "∿", erase: "− point", remove: "− path", undo: "↶", redo: "↷", text: "{ }", play: "▶",
}
const STAGE = 180 // pixels of the drawing area's height, at least
const STYLE = `
.vc-draw { display: flex; flex-direction: column; gap: 4px; height: 100%; box-sizing: border-box; font: 12px sans-serif; overflow: hidden;
  color: var(--input-text, #ddd); user-select: none; }
.vc-draw-row { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; }
.vc-draw button, .vc-draw input, .vc-draw select, .vc-draw textarea { font: inherit; color: inherit; background: var(--comfy-input-bg, #222);
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px; padding: 2px 6px; min-height: 24px; min-width: 24px; box-sizing: border-box; }
.vc-draw button { cursor: pointer; }
.vc-draw button[aria-pressed=true] { background: var(--p-primary-color, #0b8ce9); color: #fff; }
.vc-draw button:disabled, .vc-draw input:disabled, .vc-draw select:disabled { opacity: 0.4; cursor: default; }
.vc-draw input[type=number] { width: 56px; padding: 2px 3px; }
.vc-draw input[type=range] { flex: 1; min-width: 60px; padding: 0; }
.vc-draw :focus-visible { outline: 2px solid var(--p-primary-color, #0b8ce9); outline-offset: 1px; }
.vc-draw-stage { position: relative; flex: 1 1 ${STAGE}px; min-height: ${STAGE}px; }
.vc-draw-row, .vc-draw-told { flex: none; }
.vc-draw-area { position: absolute; inset: 0; width: 100%; height: 100%; border-radius: 4px; touch-action: none; cursor: crosshair; }
.vc-draw textarea { position: absolute; inset: 0; width: 100%; height: 100%; resize: none; font-family: monospace; user-select: text; }
.vc-draw-told { min-height: 15px; opacity: 0.85; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.vc-draw-told.vc-draw-wrong { color: var(--error-text, #ff6b6b); opacity: 1; }
`

export class Panel {
  /** @param {import("./editor.js").PathEditor} editor */
  constructor(editor, texts) {
    this.editor = editor
    this.texts = texts
    addStyle()
    this.element = make("div", { className: "vc-draw" })
    for (const kind of ["pointerdown", "dblclick", "keydown", "paste", "copy"]) {
      this.element.addEventListener(kind, (event) => {
        if (kind !== "keydown" || !(event.ctrlKey || event.metaKey)) event.stopPropagation() // or the graph takes it for its own
      })
    }
    this.buttons = Object.fromEntries(
      [
        ["path", () => editor.startPath()], ["still", () => editor.addStill()], ["box", () => editor.toggleBox()],
        ["smooth", () => editor.toggleSmooth()], ["erase", () => editor.removePoint()], ["remove", () => editor.removePath()],
        ["undo", () => editor.undo()], ["redo", () => editor.redo()], ["text", () => this.toggleText()], ["play", () => editor.togglePlay()],
      ].map(([name, action]) => [name, this.button(name, action)]),
    )
    const { play, ...tools } = this.buttons
    this.text = make("textarea", { hidden: true, spellcheck: false, ariaLabel: texts.text })
    this.text.addEventListener("change", () => editor.replace(this.text.value))
    this.time = make("input", { type: "range", min: 0, step: 1, ariaLabel: texts.frame })
    this.time.addEventListener("input", () => editor.show(this.time.valueAsNumber))
    this.shown = make("span", {})
    this.told = make("div", { className: "vc-draw-told", title: texts.help })
    this.told.setAttribute("role", "status")
    this.fields()
    this.element.append(
      row(...Object.values(tools)), stage(editor.area, this.text), row(play, this.time, this.shown),
      row(label("x", this.x), label("y", this.y), label(texts.key, this.frame), this.ease, label(texts.boxSize, this.width, this.height)),
      this.told,
    )
  }

  fields() {
    const editor = this.editor
    this.x = this.number("x", (x) => editor.setPoint({ x }))
    this.y = this.number("y", (y) => editor.setPoint({ y }))
    this.frame = this.number(this.texts.key, (frame) => editor.setFrame(frame), true)
    this.frame.placeholder = this.texts.auto
    this.frame.min = 0
    this.width = this.number(`${this.texts.boxSize} x`, (width) => editor.setBox(Math.max(width, 2), editor.chosen.box[1]))
    this.height = this.number(`${this.texts.boxSize} y`, (height) => editor.setBox(editor.chosen.box[0], Math.max(height, 2)))
    this.ease = make("select", { ariaLabel: this.texts.ease })
    this.ease.append(...EASINGS.map((ease) => make("option", { value: ease, textContent: ease })))
    this.ease.addEventListener("change", () => editor.setPoint({ ease: this.ease.value }))
  }

  button(name, action) {
    const button = make("button", { type: "button", textContent: SIGNS[name], title: this.texts[name], ariaLabel: this.texts[name] })
    button.dataset.name = name
    button.addEventListener("click", () => {
      action()
      if (name !== "text") this.editor.area.focus({ preventScroll: true })
    })
    return button
  }

  number(name, action, mayBeEmpty = false) {
    const input = make("input", { type: "number", step: "any", ariaLabel: name })
    input.addEventListener("change", () => {
      if (Number.isFinite(input.valueAsNumber)) action(Math.min(Math.max(input.valueAsNumber, -1e6), 1e6))
      else if (mayBeEmpty) action(null)
      this.update()
    })
    return input
  }

  toggleText() {
    this.text.hidden = !this.text.hidden
    this.editor.render()
    if (!this.text.hidden) this.text.focus()
  }

  /** The height in pixels that all of it takes at least, at its present width. */
  get leastHeight() {
    return [...this.element.children].reduce((sum, child) => sum + (child.matches(".vc-draw-stage") ? STAGE : child.offsetHeight) + 4, 0)
  }

  update() {
    const { editor, texts } = this, { chosen, chosenPoint, canvas } = editor
    const enabled = {
      erase: chosenPoint, remove: chosen, box: chosen, smooth: chosen, undo: editor.past.length, redo: editor.future.length,
      play: editor.paths.length,
    }
    for (const [name, value] of Object.entries(enabled)) this.buttons[name].disabled = !value
    const pressed = { box: chosen?.box, smooth: chosen?.curve === "smooth", text: !this.text.hidden, path: !chosen }
    for (const [name, value] of Object.entries(pressed)) this.buttons[name].setAttribute("aria-pressed", String(Boolean(value)))
    const play = editor.playing ? texts.pause : texts.play
    Object.assign(this.buttons.play, { textContent: editor.playing ? "⏸" : SIGNS.play, title: play, ariaLabel: play })
    this.time.max = canvas.frames - 1
    this.time.value = editor.frame
    this.shown.textContent = `${texts.frame} ${editor.frame} / ${canvas.frames - 1}`
    fill(this.x, chosenPoint?.x)
    fill(this.y, chosenPoint?.y)
    fill(this.frame, chosenPoint?.frame, !chosenPoint)
    fill(this.width, chosen?.box?.[0])
    fill(this.height, chosen?.box?.[1])
    this.ease.disabled = !chosenPoint
    this.ease.value = chosenPoint?.ease ?? "linear"
    if (document.activeElement !== this.text) this.text.value = editor.store.read()
    this.tell()
  }

  tell() {
    const { editor, texts } = this
    const wrong = editor.problem || (editor.store.linked() ? texts.linked : "")
    const where = editor.chosenPoint ? `${editor.chosen.name}. ${texts.point} ${editor.point + 1} ${texts.of} ${editor.chosen.points.length}. ` : ""
    this.told.textContent = wrong || (editor.paths.length ? where : texts.empty) + (where ? "" : ` ${texts.help}`)
    this.told.classList.toggle("vc-draw-wrong", Boolean(wrong))
  }
}

function fill(input, value, disabled = value === undefined) {
  input.disabled = disabled
  if (document.activeElement !== input) input.value = value === undefined || value === null ? "" : rounded(value)
}

function addStyle() {
  if (document.getElementById("vc-draw-style")) return
  document.head.append(make("style", { id: "vc-draw-style", textContent: STYLE }))
}

function make(tag, values) {
  return Object.assign(document.createElement(tag), values)
}

function row(...children) {
  const element = make("div", { className: "vc-draw-row" })
  element.append(...children)
  return element
}

function stage(...children) {
  const element = make("div", { className: "vc-draw-stage" })
  element.append(...children)
  return element
}

function label(text, ...inputs) {
  const element = make("label", {})
  element.append(`${text} `, ...inputs)
  return element
}
