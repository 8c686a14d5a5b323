document.addEventListener("click", event => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  // The button of a case stands in a summary, which a click would fold.
  event.preventDefault();
  const text = document.getElementById(button.dataset.of).textContent;
  const done = () => { button.textContent = "copied"; };
  const byHand = () => {
    // Where a page from a file may not use the clipboard.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    if (document.execCommand("copy")) done();
    area.remove();
  };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, byHand);
  else byHand();
});
