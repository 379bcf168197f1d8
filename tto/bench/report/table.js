// The table of rows: filtered by codec and quality, sorted by any column.

const sorting = { column: 0, descending: false };

function startTable() {
  const head = document.querySelector("#rows thead");
  const line = head.insertRow();
  report.columns.forEach((column, index) => {
    const cell = document.createElement("th");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = column.title;
    button.addEventListener("click", () => {
      sorting.descending = sorting.column === index && !sorting.descending;
      sorting.column = index;
      fillTable();
    });
    cell.append(button);
    line.append(cell);
  });
  fillSelect("filter-codec", ["all", ...new Set(report.rows.map((row) => row[1]))], report.mainCurve ?? "all");
  fillSelect("filter-quality", ["all", ...[...new Set(report.rows.map((row) => row[2]))].sort((a, b) => a - b)], "all");
  document.getElementById("filter-codec").addEventListener("change", fillTable);
  document.getElementById("filter-quality").addEventListener("change", fillTable);
  fillTable();
}

function fillSelect(id, values, chosen) {
  document.getElementById(id).replaceChildren(
    ...values.map((value) => new Option(value, value, false, value === chosen)),
  );
}

function fillTable() {
  const codec = document.getElementById("filter-codec").value;
  const quality = document.getElementById("filter-quality").value;
  const rows = report.rows.filter(
    (row) => (codec === "all" || row[1] === codec) && (quality === "all" || row[2] === Number(quality)),
  );
  rows.sort((a, b) => compareCells(a[sorting.column], b[sorting.column]) * (sorting.descending ? -1 : 1));
  const body = document.createElement("tbody");
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((value, index) => (line.insertCell().textContent = cellText(value, report.columns[index].digits)));
  }
  document.querySelector("#rows tbody").replaceWith(body);
  document.getElementById("save-rows").href = `data:text/csv;charset=utf-8,${encodeURIComponent(asCSV(rows))}`;
  document.getElementById("count").textContent = `${rows.length} of ${report.rows.length} files`;
  document.querySelectorAll("#rows th").forEach((cell, index) => {
    const order = sorting.descending ? "descending" : "ascending";
    cell.setAttribute("aria-sort", index === sorting.column ? order : "none");
  });
}

// Missing figures come last when ascending; "inf" is the largest number.
function compareCells(a, b) {
  const rank = (value) => (value === null ? 2 : value === "inf" ? 1 : 0);
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  return typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function cellText(value, digits) {
  if (value === null) return "–";
  return typeof value === "number" && digits !== null ? value.toFixed(digits) : String(value);
}

// No cell begins as a spreadsheet's formula does.
function asCSV(rows) {
  const cell = (value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r']/.test(value) ? `'${value}` : String(value ?? "");
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [report.columns.map((column) => column.title), ...rows].map((line) => line.map(cell).join(",") + "\n").join("");
}
