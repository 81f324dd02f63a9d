// Sets the chosen theme before anything is painted. A file of its own, because the page's policy forbids inline scripts.
try {
  const chosen = localStorage.getItem('perigee.theme');
  if (chosen === 'dark' || chosen === 'light') document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is closed to this page: the system's theme it is.
}
