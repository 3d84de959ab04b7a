// trainer/report/page/heat.js -- maps of numbers: rows by columns.
