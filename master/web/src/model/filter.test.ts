import { expect, test } from 'vitest';
import { fitsGlob, parseFilter } from './filter';
import { readItem } from './item';
import { object } from './sample';

const items = [
  object('web01', 'http', { state: 'CRITICAL', output: 'Connection refused' }),
  object('web02', 'disk /', { state: 'WARNING', region: 'us', slot: 2, groups: [] }),
  object('db01', null, { state: 'DOWN', state_type: 'SOFT', stale: true }),
].map(readItem);

function found(text: string): string[] {
  const filter = parseFilter(text);
  return 'fits' in filter ? items.filter(filter.fits).map((item) => item.key) : [filter.error];
}

test.each([
  ['', ['web01!http', 'web02!disk /', 'db01']],
  ['WEB', ['web01!http', 'web02!disk /']],
  ['web 02', ['web02!disk /']],
  ['refused', ['web01!http']],
  ['us/2', ['web02!disk /']],
  ['state=critical', ['web01!http']],
  ['state=critical state=down', ['web01!http', 'db01']],
  ['state!=critical region=eu', ['db01']],
  ['service="disk /"', ['web02!disk /']],
  ['host=web*', ['web01!http', 'web02!disk /']],
  ['service!=*', ['db01']],
  ['group=web host=web??', ['web01!http']],
  ['state_type=soft stale=true', ['db01']],
  ['slot=2', ['web02!disk /']],
])('the filter %j finds %j', (text, keys) => {
  expect(found(text)).toEqual(keys);
});

test('an unknown field and an open quote are errors, not empty lists', () => {
  expect(found('hots=web01')[0]).toMatch(/“hots”.*host, service/u);
  expect(found('constructor=1')[0]).toMatch(/“constructor”/u);
  expect(found('service="disk')[0]).toMatch(/quote/u);
});

test.each([
  ['web*', 'web01.example.net', true],
  ['web*', 'db-web', false],
  ['*a*b*', 'xxaxxbxx', true],
  ['*a*b', 'xxaxxbxx', false],
  ['web0?', 'web01', true],
  ['web0?', 'web0', false],
  ['', '', true],
  ['*', '', true],
  ['straße*', 'straße 1', true],
])('the pattern %j on %j', (pattern, text, fits) => {
  expect(fitsGlob(pattern, text)).toBe(fits);
});
