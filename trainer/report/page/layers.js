// trainer/report/page/layers.js -- what validation has measured in each layer.

function layers_section() {
}
