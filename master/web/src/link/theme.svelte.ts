// Dark, light, or as the system has it. The choice stays in this browser; `theme.js` applies it before the page is painted.

export const THEMES = ['system', 'light', 'dark'] as const;
export type ThemeName = (typeof THEMES)[number];
const KEY = 'perigee.theme';

function chosen(): ThemeName {
  const set = document.documentElement.dataset['theme'];
  return set === 'dark' || set === 'light' ? set : 'system';
}

export class Theme {
  name = $state<ThemeName>(chosen());

  choose(name: ThemeName): void {
    this.name = name;
    if (name === 'system') delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = name;
    try {
      if (name === 'system') localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, name);
    } catch {
      // Storage is closed to this page: the choice lives as long as the page does.
    }
  }
}
