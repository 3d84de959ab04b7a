// trainer/report/page/evaluations.js -- needle, loss by position, and the scores.

function evaluations_section() {
}
