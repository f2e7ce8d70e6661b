// The drawing widget's texts. What the buttons say is shown when the pointer rests on them, and told by screen readers.

const ENGLISH = {
  path: "New path (N)", still: "New point that stays", box: "Box around the path (B)", smooth: "Smooth curve (S)",
  erase: "Delete the point (Delete)", remove: "Delete the path (Shift+Delete)", undo: "Undo (Ctrl+Z)", redo: "Redo (Ctrl+Shift+Z)",
  text: "Show the text", play: "Play (space)", pause: "Pause (space)", frame: "frame", key: "at frame", auto: "auto", ease: "then",
  boxSize: "box", area: "Drawing of paths",
  help: "Click: add a point. Drag: move. Shift+drag: move the path. Keys: arrows move, Enter adds, Delete deletes, N new path, "
    + ", and . choose a point, PageUp and PageDown a path, B box, S smooth, K keyframe, Ctrl+Z undo, Space plays.",
  linked: "The paths come by a link; what is drawn here is not used.",
  unread: "The text can't be read: ", empty: "Click on the picture to begin a path.",
  rise: "The frames must rise along the path.", point: "Point", of: "of",
}

const CHINESE = {
  path: "新路径 (N)", still: "新的静止点", box: "路径周围的方框 (B)", smooth: "平滑曲线 (S)", erase: "删除点 (Delete)",
  remove: "删除路径 (Shift+Delete)", undo: "撤销 (Ctrl+Z)", redo: "重做 (Ctrl+Shift+Z)", text: "显示文本", play: "播放 (空格)",
  pause: "暂停 (空格)", frame: "帧", key: "位于帧", auto: "自动", ease: "之后", boxSize: "方框", area: "路径绘制区",
  help: "点击：添加点。拖动：移动。Shift+拖动：移动整条路径。按键：方向键移动，Enter 添加，Delete 删除，N 新路径，, 和 . 选择点，"
    + "PageUp 和 PageDown 选择路径，B 方框，S 平滑，K 关键帧，Ctrl+Z 撤销，空格播放。",
  linked: "路径来自连线；这里绘制的内容不会被使用。", unread: "无法读取文本：", empty: "在图像上点击以开始一条路径。",
  rise: "帧号必须沿路径递增。", point: "点", of: "/",
}

/** The texts in a language of the interface, such as `en` or `zh-TW`. */
export function texts(language) {
  return String(language ?? "").startsWith("zh") ? CHINESE : ENGLISH
}
