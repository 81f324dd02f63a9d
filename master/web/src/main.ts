// Puts the page into the document.
import '@fontsource-variable/ibm-plex-sans/wdth.css';
import './style.css';
import { mount } from 'svelte';
import App from './view/App.svelte';

mount(App, { target: document.body });
