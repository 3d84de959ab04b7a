// trainer/report/page/sweep.js -- a sweep's table, its values with their errors, its fits.

function sweep_sections() {
}
